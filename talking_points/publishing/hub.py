"""Publishing a finished dataset on the Hugging Face Hub, so that running it again after any failure completes it.

The card goes up first, then the data, then what was uploaded is read back, and only what was found right is tagged.
Every commit names the commit it builds on, so of two publishers at once the Hub lets one through. The token comes from
the Hub's standard places (HF_TOKEN, ``hf auth login``) or from the caller, and is never part of a message or a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import SecretStr

from talking_points.publishing.card import image_modes
from talking_points.publishing.images import ImageMode
from talking_points.publishing.release import Release, ReleaseError, file_sha256, prepare_release
from talking_points.publishing.verification import differences, file_digests

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

_ADVICE = {
    400: "the Hub refused the request itself; the reason is quoted above",
    401: "the Hub does not accept the token, or got none: run 'hf auth login', or set HF_TOKEN to a valid token with "
    "write access",
    403: "the token is valid but may not write there: use one with the role 'write' that covers this organisation, or "
    "ask its owner for access",
    404: "the organisation, repository or revision does not exist, or the token may not see it: check the spelling of "
    "ORG/NAME and who the token belongs to ('hf auth whoami')",
    409: "the name is taken there already: choose another tag with --revision, or another repository",
    412: "somebody else committed to the repository meanwhile, and nothing of theirs was overwritten: wait until "
    "they are done, then run the same command again",
    429: "too many requests (the Hub counts commits per hour): wait, then run the same command again; it goes "
    "on where it stopped",
}
_UNAVAILABLE = "the Hub failed to answer properly: run the same command again; it goes on where it stopped"


class PublishError(RuntimeError):
    """The Hub did not take the dataset. ``status`` is its HTTP status, or None where the connection broke."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class PublishReport:
    """What was published, or would be. ``files`` in bytes; ``url`` and ``commit`` are None after a dry run."""

    repo: str
    url: str | None
    commit: str | None
    tag: str
    rows: dict[str, int]
    images: dict[str, ImageMode]
    files: dict[str, int]
    verified: bool
    warnings: tuple[str, ...]


def publish(
    output: Path,
    repo: str,
    *,
    private: bool = False,
    tag: str | None = None,
    images: ImageMode | None = None,
    dry_run: bool = False,
    allow_partial: bool = False,
    verify: bool = True,
    token: SecretStr | None = None,
) -> PublishReport:
    """Upload the dataset in ``output`` to the dataset repository ``repo`` ("org/name"), tag it and read it back.

    ``tag`` defaults to a name made from the content. ``images`` as in ``prepare_release``. A ``dry_run`` checks the
    dataset and says what would go up, without contacting the Hub. ``verify`` reads all rows back, twice.
    Raises ``ReleaseError`` for a dataset that must not go up, ``PublishError`` when the Hub or the connection refuses.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ReleaseError(f"expected a repository of the form org/name, found '{repo}'")
    with TemporaryDirectory(prefix="talking-points-") as workspace:
        release = prepare_release(
            output, repo, Path(workspace), images=images, public=not private, allow_partial=allow_partial
        )
        tag = tag or release.name
        url = commit = None
        if not dry_run:
            with explained(f"cannot publish {repo}"):
                url, commit = _upload(release, repo, private, tag, token, verify)
        return PublishReport(
            repo=repo,
            url=url,
            commit=commit,
            tag=tag,
            rows=dict(release.manifest["rows"]),
            images=image_modes(release.manifest),
            files={name: len(file.encode()) if isinstance(file, str) else file.stat().st_size
                   for name, file in release.files.items()},
            verified=verify and not dry_run,
            warnings=release.warnings,
        )  # fmt: skip


def _upload(
    release: Release, repo: str, private: bool, tag: str, token: SecretStr | None, verify: bool
) -> tuple[str, str]:
    """Create, upload, verify, tag. Returns the repository's address and the commit that holds the dataset."""
    from huggingface_hub import HfApi

    secret = token.get_secret_value() if token else None
    api = HfApi(token=secret)
    url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    present = api.repo_info(repo, repo_type="dataset")
    if private and not present.private:
        raise PublishError(
            f"{repo} exists and is public, but was to be private: make it private in its settings on the Hub, or "
            "publish without --private",
            409,
        )
    head = _commit_card(api, release, repo, present.sha)
    # upload_folder splits into several commits where files are many, and skips what is there already.
    head = api.upload_folder(
        repo_id=repo,
        repo_type="dataset",
        folder_path=_data_folder(release),
        path_in_repo="data",
        allow_patterns=[Path(name).name for name in release.data],
        delete_patterns=["*.parquet"],
        commit_message="Upload the data",
        parent_commit=head,
    ).oid
    _check_files(api, release, repo, head)
    if verify:
        wrong = differences(repo, head, file_digests(release.data.values()), secret)
        if wrong:
            raise PublishError(f"{repo} at {head} reads back differently: {'; '.join(wrong)}. It was not tagged")
    _tag(api, repo, tag, head)
    return str(url), head


def _commit_card(api: HfApi, release: Release, repo: str, head: str | None) -> str:
    """Card, manifest and figures in one commit; figures that the card no longer shows go away with it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, file.encode() if isinstance(file, str) else file)
        for name, file in release.files.items()
        if name not in release.data
    ]
    present = api.list_repo_files(repo, repo_type="dataset", revision=head)
    stale = [name for name in present if name.startswith("figures/") and name not in release.files]
    operations += [CommitOperationDelete(name) for name in stale]
    return api.create_commit(
        repo, operations, repo_type="dataset", commit_message="Update the dataset card", parent_commit=head
    ).oid


def _data_folder(release: Release) -> Path:
    return next(iter(release.data.values())).parent


def _check_files(api: HfApi, release: Release, repo: str, commit: str) -> None:
    """The commit must hold exactly the data files of this release, whoever else was writing."""
    from huggingface_hub.hf_api import RepoFile

    found = {}
    for item in api.list_repo_tree(repo, "data", repo_type="dataset", revision=commit, recursive=True):
        if isinstance(item, RepoFile):
            found[item.path] = (item.size, item.lfs.sha256 if item.lfs else None)
    expected = {name: (path.stat().st_size, file_sha256(path)) for name, path in release.data.items()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise PublishError(
            f"{repo} at {commit} does not hold the files of this dataset: {', '.join(wrong)}. Another publisher may be "
            "writing to it: wait until it is done, then run the same command again",
            412,
        )


def _tag(api: HfApi, repo: str, tag: str, commit: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(repo, tag=tag, revision=commit, repo_type="dataset")
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, repo_type="dataset").tags}
        if tags.get(tag) != commit:
            raise PublishError(
                f"the data is in {repo} at {commit}, but the tag '{tag}' exists already, at {tags.get(tag)}: "
                "choose another with --revision, or delete it on the Hub",
                409,
            ) from None


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Errors of the Hub's client as a ``PublishError`` that says what to do.

    The cause is cut off: its frames hold request headers, and so the token.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, httpx2.TransportError, ConnectionError, RuntimeError) as raised:
        # The upload of a large file wraps its error once more.
        error = raised.__cause__ if isinstance(raised, RuntimeError) else raised
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            raise PublishError(f"{failure}: {_first_line(error)}\n{_advice(error)}", status) from None
        if isinstance(error, httpx2.TransportError | ConnectionError):
            raise PublishError(
                f"{failure}: the connection to {_endpoint()} broke ({_without_token(repr(error))})\n"
                "run the same command again; what was uploaded is not sent twice"
            ) from None
        raise


def _advice(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    advice = _ADVICE.get(status, _UNAVAILABLE)
    wait = error.response.headers.get("Retry-After")
    return f"{advice} (in {wait} seconds)" if status == 429 and wait else advice


def _first_line(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    reason = error.server_message or error.response.reason_phrase
    return _without_token(f"HTTP {status} from {_endpoint()}: {reason}")


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _without_token(text: str) -> str:
    return re.sub(r"hf_\w{4,}", "hf_***", text)
