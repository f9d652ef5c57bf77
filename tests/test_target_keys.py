"""Keys that go in an address's query, and certificates: sent where they are wanted, and not said to
be missing where they are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from loadbench.errors import SpecError, TargetError
from loadbench.plan import Endpoint, RequestPlan, Tls, keys_told
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec
from tests.answering import Answering, Handler, serve
from tests.running import loadbench
from tests.secure import Papers, make_papers, terminated

SECRET = "k-sekret-31415926"


class Guarded(Answering):
    models = False
    takes = SECRET


class Guard(Handler):
    """Refuses all whose query has not the key."""

    server: Guarded

    def do_GET(self) -> None:
        self.body()
        asked = urlsplit(self.path)
        if parse_qs(asked.query).get("api_key") != [self.server.takes]:
            self.tell(401, {"error": f"who asks {self.path}?"})
        elif self.server.models and asked.path == "/v1/models":
            self.tell(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
        elif asked.path == "/":
            self.tell(200, {})
        else:
            self.tell(404, {})

    do_POST = do_OPTIONS = do_GET


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@contextmanager
def guarded(path: str = "/") -> Iterator[tuple[Guarded, str]]:
    with serve(Guarded(Guard)) as server:
        yield server, f"{server.url}{path}?api_key={SECRET}"


@pytest.mark.parametrize("protocol", ["auto", "http"])
@pytest.mark.parametrize("given", ["url", "path"])
def test_a_key_in_the_query_is_shown_to_who_wants_to_know_who_asks(
    protocol: str, given: str
) -> None:
    with guarded() as (_, url):
        plain, _, query = url.partition("/?")
        found = {"url": url} if given == "url" else {"url": plain, "path": f"/?{query}"}
        wanted = TargetSpec.model_validate({**found, "protocol": protocol})
        with Asker(wanted.url, protocol) as asker:
            endpoint = asker.describe(wanted)
    assert (endpoint.protocol, endpoint.path) == ("http", f"/?{query}")


@pytest.mark.parametrize("protocol", ["auto", "openai"])
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/completions"])
def test_a_key_in_the_query_goes_to_servers_of_completions(protocol: str, path: str) -> None:
    with guarded(path) as (server, url), Asker(url, protocol) as asker:
        server.models = True
        endpoint = asker.describe(TargetSpec.model_validate({"url": url, "protocol": protocol}))
    asked = "/v1/chat/completions" if path != "/v1/completions" else path
    assert (endpoint.model, endpoint.path) == ("m", f"{asked}?api_key={SECRET}")


@pytest.mark.parametrize("protocol", ["auto", "openai"])
def test_a_key_in_the_query_that_is_refused_is_said_to_have_been_sent(protocol: str) -> None:
    with guarded() as (server, url):
        server.takes = "another"
        wanted = TargetSpec.model_validate({"url": url, "protocol": protocol})
        with pytest.raises((SpecError, TargetError)) as caught, Asker(url, protocol) as asker:
            asker.describe(wanted)
    told = caught.value.message + caught.value.hint
    assert "it was sent api_key in the query, and refuses that" in told
    assert "/v2?api_key=(left out)" in told or protocol == "openai"
    assert ('protocol = "http"' in told) == (protocol == "auto")
    assert SECRET not in told
    assert "asks for a key" not in told


def test_who_has_no_use_for_a_query_is_given_its_key_by_a_header() -> None:
    with guarded() as (_, url), pytest.raises(SpecError) as caught, Asker(url, "kserve") as asker:
        asker.describe(TargetSpec(url=url, protocol="kserve"))
    assert "its key goes in target.headers" in caught.value.hint


def test_a_certificate_that_was_shown_is_not_said_to_be_missing(papers: Papers) -> None:
    tls = Tls(papers.ca, cert=papers.client)
    with serve(Guarded(Guard)) as server, terminated(papers.server, server.server_port) as port:
        url = f"https://localhost:{port}"
        with pytest.raises(SpecError) as caught, Asker(url, tls=tls) as asker:
            asker.describe(TargetSpec(url=url))
        with pytest.raises(SpecError) as bare, Asker(url, tls=Tls(papers.ca)) as asker:
            asker.describe(TargetSpec(url=url))
    assert "it was sent a certificate, and refuses that" in caught.value.message
    assert "it asks for a key" in bare.value.message


def test_a_run_says_what_was_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    with guarded() as (server, url):
        server.takes = "another"
        own.write_text(
            f'[target]\nurl = "{url}"\nprotocol = "http"\n'
            '[load]\narrivals = "constant"\nphases = [{ rate = 40, for = "6s" }]\n'
            '[[alert]]\nwhen = "errors > 1 %"\nfor = "1 s"\n'
        )
        tried = loadbench("run", own, "--dry-run", cwd=tmp_path, code=1).stdout
        done = loadbench("run", own, cwd=tmp_path, code=None).stdout
    words = "the target was sent api_key in the query, and refuses that"
    assert f"✗ HTTP 401: {words}; is it in the form" in tried
    assert f"Likely: {words}" in done
    assert SECRET not in tried + done


def test_keys_are_known_wherever_requests_have_them() -> None:
    endpoint = Endpoint("h", 1, "http", tls=Tls(cert="c.pem"), path="/?size=2")
    headers = {"Authorization": "Bearer $MODEL_TOKEN", "X-Tenant": "a"}
    kinds = (
        RequestPlan("a"),
        RequestPlan("b", path="/b?key=short&n=1", headers={"X-API-Key": "1"}),
        RequestPlan("c", path="/c?n=1&sig=short&token=1&appid=$APP_ID"),
    )
    queried = [f"{name} in the query" for name in ("key", "sig", "token")]
    named = "appid in the query (just $APP_ID)"  # which is filled in by no one
    found = ("Authorization", "X-API-Key", *queried, named, "a certificate")
    assert keys_told(headers, endpoint, kinds) == found
    assert keys_told({}, Endpoint("h", 1, "http", path="/?size=2"), kinds[:1]) == ()
