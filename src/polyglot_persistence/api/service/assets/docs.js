// The description names no server: it is the one that this page comes from, below whatever path.
const home = new URL("./", document.baseURI);
const description = await (await fetch(new URL("openapi.json", home))).json();
// validatorUrl: the default would send the description's address to a server elsewhere.
SwaggerUIBundle({
  spec: { ...description, servers: [{ url: home.href.replace(/\/$/, "") }] },
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});
