"""Objects of Kubernetes, checked strictly and offline, and the chart of this repository rendered.

Kubernetes' own kinds are checked against the schemas that `kubernetes-validate` brings, those of
operators against schemas of the fields that are used here.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.documents import ROOT

CHART = ROOT / "deploy" / "helm"
VERSIONS = ("1.30", "1.37")
"""The oldest that the chart allows, and the newest whose schemas are there."""
HELM = shutil.which("helm", path=f"{ROOT / '.cache' / 'bin'}:{os.environ['PATH']}")
NEEDS_HELM = pytest.mark.skipif(
    HELM is None and os.environ.get("REQUIRE_SERVERS") != "1",
    reason="helm is not installed (scripts/get-helm)",
)

Object = dict[str, Any]


def helm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of helm for the newest Kubernetes, without any cluster."""
    assert HELM is not None, "helm is not installed (scripts/get-helm)"
    words = [HELM, command, f"--kube-version={VERSIONS[-1]}", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@functools.cache
def rendered(values: str, *more: str) -> Sequence[Object]:
    """Return the objects that the chart makes of a file of values, with further arguments."""
    done = helm("template", "orders", str(CHART), "--namespace=shop", f"--values={values}", *more)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def check(one: Object, version: str) -> None:
    """Raise if an object has a field that it must not have, or one of another type."""
    schema = _OF_OPERATORS.get((one["apiVersion"], one["kind"]))
    if schema is None:
        kubernetes_validate.validate(one, version, strict=True)
        return
    jsonschema.validate(one, _fields(apiVersion=_TEXT, kind=_TEXT, metadata=_METADATA, spec=schema))


def _fields(**properties: Any) -> Object:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _list(items: Object) -> Object:
    return {"type": "array", "minItems": 1, "items": items}


_TEXT: Object = {"type": "string", "minLength": 1}
_NUMBER: Object = {"type": "integer", "minimum": 1}
_TEXTS: Object = {"type": "object", "additionalProperties": {"type": "string"}}
_ANY: Object = {"type": "object"}
_METADATA = _fields(name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS)
_RESOURCES = _fields(requests=_TEXTS, limits=_TEXTS)
_SECRETS = _list(_fields(secretName=_TEXT))

_OF_OPERATORS: Mapping[tuple[str, str], Object] = {
    ("keda.sh/v1alpha1", "ScaledObject"): _fields(
        scaleTargetRef=_fields(apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
        minReplicaCount=_NUMBER,
        maxReplicaCount=_NUMBER,
        fallback=_fields(failureThreshold=_NUMBER, replicas=_NUMBER),
        triggers=_list(
            _fields(
                type={"const": "prometheus"},
                metricType={"const": "AverageValue"},  # a fallback works with no other
                metadata=_fields(
                    serverAddress=_TEXT,
                    query=_TEXT,
                    threshold={"type": "string", "pattern": "^[0-9]+$"},
                    ignoreNullValues={"enum": ["true", "false"]},
                ),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _fields(
        jobLabel=_TEXT,
        selector=_fields(matchLabels=_TEXTS),
        endpoints=_list(
            _fields(
                port=_TEXT,
                path=_TEXT,
                interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                authorization=_fields(credentials=_fields(name=_TEXT, key=_TEXT)),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _fields(
        groups=_list(
            {
                **_fields(
                    name=_TEXT,
                    interval=_TEXT,
                    rules=_list(
                        {
                            **_fields(
                                alert=_TEXT,
                                record=_TEXT,
                                expr=_TEXT,
                                labels=_TEXTS,
                                annotations=_TEXTS,
                                **{"for": _TEXT},
                            ),
                            "required": ["expr"],
                        }
                    ),
                ),
                "required": ["name", "rules"],
            }
        )
    ),
    ("postgresql.cnpg.io/v1", "Cluster"): {
        **_fields(
            instances=_NUMBER,
            imageName=_TEXT,
            bootstrap=_fields(initdb=_fields(database=_TEXT, owner=_TEXT)),
            postgresql=_fields(
                synchronous=_fields(method={"enum": ["any", "first"]}, number=_NUMBER),
                parameters=_TEXTS,
            ),
            storage=_fields(size=_TEXT),
            resources=_RESOURCES,
        ),
        "required": ["instances"],
    },
    ("rabbitmq.com/v1beta1", "RabbitmqCluster"): _fields(
        replicas=_NUMBER,
        persistence=_fields(storage=_TEXT),
        rabbitmq=_fields(additionalConfig=_TEXT),
        resources=_RESOURCES,
        affinity=_ANY,
    ),
    ("elasticsearch.k8s.elastic.co/v1", "Elasticsearch"): {
        **_fields(
            version=_TEXT,
            auth=_fields(fileRealm=_SECRETS, roles=_SECRETS),
            nodeSets=_list(
                _fields(
                    name=_TEXT,
                    count=_NUMBER,
                    config=_ANY,
                    volumeClaimTemplates=_list(_ANY),
                    podTemplate=_ANY,
                )
            ),
        ),
        "required": ["version", "nodeSets"],
    },
}
