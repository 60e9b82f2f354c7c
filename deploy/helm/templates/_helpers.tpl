{{- /* Helpers of two arguments take a dict: root, the chart's context, and component, one of
api, worker and migration. */ -}}

{{- define "polyglot.name" -}}
{{ .root.Release.Name | trunc 50 | trimSuffix "-" }}-{{ .component }}
{{- end }}

{{- define "polyglot.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "polyglot.labels" -}}
{{ include "polyglot.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "polyglot.image" -}}
{{- with .image -}}
{{ .repository }}:{{ .tag | default $.root.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- /* The settings of a component, as YAML. */ -}}
{{- define "polyglot.settings" -}}
{{- $own := get .root.Values .component -}}
{{- mergeOverwrite (deepCopy .root.Values.settings) $own.settings | toYaml -}}
{{- end }}

{{- /* A value as a setting has it: Go prints large whole numbers with an exponent. */ -}}
{{- define "polyglot.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{- define "polyglot.env" -}}
- name: POD_IP # Prometheus addresses a pod by it
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- range $name, $value := include "polyglot.settings" . | fromYaml }}
{{- if and (eq $name "ALLOWED_HOSTS") (ne $value "auto") }}
{{- $value = printf "%s $(POD_IP)" $value }}
{{- end }}
- name: {{ $name }}
  value: {{ include "polyglot.text" $value | quote }}
{{- end }}
{{- end }}

{{- /* The ports of a component by name: what probes and clients use first. */ -}}
{{- define "polyglot.ports" -}}
{{- $settings := include "polyglot.settings" . | fromYaml -}}
{{- if eq .component "worker" -}}
metrics: {{ $settings.WORKER_PORT }}
{{- else -}}
http: {{ $settings.API_PORT }}
{{- if gt (int $settings.API_PROCESSES) 1 }}
{{- range $number := until (int $settings.API_PROCESSES) }}
process-{{ add1 $number }}: {{ add $settings.API_PROCESS_PORT $number }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The names of the ports where each process shows its own metrics. */ -}}
{{- define "polyglot.metrics" -}}
{{- $names := include "polyglot.ports" . | fromYaml | keys -}}
{{- if gt (len $names) 1 -}}{{ $names = without $names "http" }}{{- end -}}
{{- $names | sortAlpha | toYaml -}}
{{- end }}

{{- define "polyglot.probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ .port }}
  httpHeaders: [{name: Host, value: localhost}] # which ALLOWED_HOSTS never refuses
{{- end }}

{{- define "polyglot.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "polyglot.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "polyglot.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $_ := .Values.secrets }}
- {name: secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "polyglot.volumes" -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- range $name, $secret := .Values.secrets }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
    {{- with $secret.keys }}
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{- /* Egress to name servers and the named targets: root, targets. */ -}}
{{- define "polyglot.egress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- range $target := .targets }}
{{- with get $.root.Values.networkPolicy.egress $target }}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
