"""Where MLflow and S3 are and how to log in: read from the environment, handed to other processes, checked by asking.

MLflow's client and boto3 read the same variables from the environment, so :meth:`Endpoints.environment` is all that
another process needs.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ichigo.engines.platform.gate import header
from ichigo.errors import PlatformError, UserError

REGION = "us-east-1"  # boto3's default and that of servers that have no regions
CONNECT_SECONDS, READ_SECONDS = 3, 8
LOGIN_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
KEY_SOURCES = (
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that let boto3 find keys elsewhere, as on a cluster; they count only where a platform is configured."""
S3_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
"""The first that is set is the S3 endpoint, boto3's own order; none is set for AWS itself."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses and keys of one MLflow server and one S3 server; ``repr`` shows no secret.

    ``s3`` is None for AWS itself; the keys are None where boto3 finds them elsewhere (a profile, a cluster role).
    """

    mlflow: str
    s3: str | None
    store: str  # s3://bucket/prefix
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = REGION
    login: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)  # MLFLOW_TRACKING_USERNAME and so on
    embedded: bool = False

    def __str__(self) -> str:
        return f"MLflow {self.mlflow} · S3 {self.s3 or 'AWS'} · store {self.store}"

    def environment(self) -> dict[str, str]:
        """The variables for a process that uses these services, to be laid over its own environment."""
        values = {
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_S3_ENDPOINT_URL": self.s3,
            "AWS_ENDPOINT_URL": self.s3,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
            "AWS_DEFAULT_REGION": self.region,
            "ICHIGO_STORE": self.store,
            **self.login,
            **(_around_proxies(os.environ) if self.embedded else {}),
        }
        return {name: value for name, value in values.items() if value is not None}


def _around_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep a company's HTTP proxy out of the way to servers on the loopback interface."""
    if not any(environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return {}
    hosts = [host for host in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",") if host]
    joined = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    return {"NO_PROXY": joined, "no_proxy": joined}


def from_environment(environ: Mapping[str, str]) -> Endpoints | None:
    """The endpoints that ``environ`` configures, or None if it configures nothing.

    Raises:
        UserError: some variables are set and others are missing, or a value cannot be used.
    """
    variables = ("MLFLOW_TRACKING_URI", "ICHIGO_STORE", *S3_VARIABLES, *KEY_VARIABLES)
    present = [name for name in variables if environ.get(name)]
    if not present:
        return None
    keys_elsewhere = any(environ.get(name) for name in KEY_SOURCES) and not any(map(environ.get, KEY_VARIABLES))
    needed = ["MLFLOW_TRACKING_URI", "ICHIGO_STORE", *([] if keys_elsewhere else KEY_VARIABLES)]
    if missing := [name for name in needed if not environ.get(name)]:
        raise UserError(
            f"The environment describes a platform only in part: {', '.join(present)} set, "
            f"{', '.join(missing)} missing. "
            f"Set what is missing, or unset {', '.join(present)} to use the embedded platform."
        )
    return _endpoints(environ)


def _endpoints(environ: Mapping[str, str]) -> Endpoints:
    s3_variable = next((name for name in S3_VARIABLES if environ.get(name)), None)
    for name in ("MLFLOW_TRACKING_URI", *([s3_variable] if s3_variable else [])):
        _refuse_password(name, environ[name])
    if not environ["ICHIGO_STORE"].startswith("s3://") or not urlsplit(environ["ICHIGO_STORE"]).netloc:
        raise UserError(f"ICHIGO_STORE is {environ['ICHIGO_STORE']!r}; it must look like s3://bucket/prefix.")
    return Endpoints(
        mlflow=environ["MLFLOW_TRACKING_URI"].rstrip("/"),
        s3=environ[s3_variable].rstrip("/") if s3_variable else None,
        store=environ["ICHIGO_STORE"].rstrip("/"),
        access_key=environ.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
        session_token=environ.get("AWS_SESSION_TOKEN") or None,
        region=environ.get("AWS_DEFAULT_REGION") or environ.get("AWS_REGION") or REGION,
        login={name: environ[name] for name in LOGIN_VARIABLES if environ.get(name)},
    )


def _refuse_password(name: str, url: str) -> None:
    if "@" in urlsplit(url).netloc:
        login = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if "TRACKING" in name else "the AWS_ variables"
        raise UserError(f"{name} contains a user or password, which logs would show; put them into {login}.")


def check_reachable(endpoints: Endpoints) -> None:
    """Ask both services one small question; takes seconds even when neither answers.

    Raises:
        PlatformError: a service does not answer, refuses the credentials, or lacks the store's bucket; names each.
    """
    problems = [problem for problem in (_mlflow_problem(endpoints), _s3_problem(endpoints)) if problem]
    if problems:
        raise PlatformError("\n".join(problems))


def _mlflow_problem(endpoints: Endpoints) -> str | None:
    """What is wrong with MLflow: a question that needs a login where there is one, unlike ``/health``."""
    if urlsplit(endpoints.mlflow).scheme not in ("http", "https"):
        return None  # a database or a hosted service: nothing at an address of its own
    try:
        ask_mlflow(endpoints, "experiments/search", {"max_results": 1})
    except PlatformError as error:
        return str(error)
    return None


def ask_mlflow(endpoints: Endpoints, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of MLflow's REST interface to a POST of ``body``; takes seconds even when nobody answers.

    Raises:
        PlatformError: it does not answer, refuses the login, or answers with another status than 200.
    """
    headers = {"Content-Type": "application/json", **_authorization(endpoints.login)}
    request = Request(f"{endpoints.mlflow}/api/2.0/mlflow/{what}", json.dumps(body).encode(), headers)
    try:
        with _opener(endpoints).open(request, timeout=READ_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
    except HTTPError as error:
        if error.code in (401, 403):
            raise PlatformError(
                f"MLflow at {endpoints.mlflow} answers but refuses the credentials (HTTP {error.code}). "
                f"Check {', '.join(LOGIN_VARIABLES)}."
            ) from None
        raise PlatformError(
            f"MLflow at {endpoints.mlflow} answers HTTP {error.code}. Is this an MLflow server?"
        ) from None
    except (OSError, HTTPException) as error:
        remedy = _remedy(endpoints, "MLFLOW_TRACKING_URI")
        raise PlatformError(f"MLflow at {endpoints.mlflow} does not answer ({_root(error)}). {remedy}") from error
    except ValueError:
        raise PlatformError(f"MLflow at {endpoints.mlflow} answers no JSON. Is this an MLflow server?") from None
    return answer


def _opener(endpoints: Endpoints) -> OpenerDirector:
    handlers = [ProxyHandler({})] if endpoints.embedded else []
    # MLflow's client takes its certificates from this variable (it asks by requests).
    context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or None)
    return build_opener(*handlers, HTTPSHandler(context=context))


def _authorization(login: Mapping[str, str]) -> dict[str, str]:
    """The header that MLflow's client would send."""
    name, password, token = (login.get(variable, "") for variable in LOGIN_VARIABLES)
    if name:
        return {"Authorization": header(name, password)}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _s3_problem(endpoints: Endpoints) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    where = f"S3 at {endpoints.s3 or 'AWS'}"
    bucket = urlsplit(endpoints.store).netloc
    try:
        _s3_client(endpoints).list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        return _s3_refusal(error, where, bucket)
    except (NoCredentialsError, PartialCredentialsError) as error:
        return f"{where}: no credentials found ({error}). Check {', '.join(KEY_VARIABLES)}."
    except BotoCoreError as error:
        return f"{where} does not answer ({_root(error)}). {_remedy(endpoints, 'AWS_ENDPOINT_URL')}"
    return None


def _s3_client(endpoints: Endpoints) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},
        proxies={} if endpoints.embedded else None,
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3,
        aws_access_key_id=endpoints.access_key,
        aws_secret_access_key=endpoints.secret_key,
        aws_session_token=endpoints.session_token,
        region_name=endpoints.region,
        config=config,
    )


def _s3_refusal(error: Any, where: str, bucket: str) -> str:
    """The sentence for an S3 answer other than success."""
    code = error.response["Error"].get("Code", "?")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if status in (401, 403):
        return (
            f"{where} answers but refuses the credentials for bucket {bucket!r} ({code}). "
            f"Check {', '.join(KEY_VARIABLES)} and the bucket's policy."
        )
    if code == "NoSuchBucket":
        return f"{where} has no bucket {bucket!r}. Create it, or check ICHIGO_STORE."
    return f"{where} answers HTTP {status} ({code}) for bucket {bucket!r}. Is this an S3 server?"


def _root(error: BaseException) -> str:
    """The innermost cause, as one short line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def _remedy(endpoints: Endpoints, variable: str) -> str:
    if endpoints.embedded:
        return "Run `ichigo up` to start what is missing."
    return f"Check {variable}, the network and whether the server runs."
