"""Publishing on the Hugging Face Hub, so that running it again after any failure completes it.

A dataset's card goes up first, then the data; a model goes up with its card in one commit. Then what was uploaded is
compared, and only what was found right is tagged. Every commit names the commit it builds on, so of two publishers at
once the Hub lets one through. The token comes from the Hub's standard places (HF_TOKEN, ``hf auth login``) or from the
caller, and is never part of a message or a report.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from talking_points.errors import InputError, RunError
from talking_points.hub_client import bounded_hub, of_the_answer
from talking_points.nearby import repository_in
from talking_points.publishing.card import image_modes
from talking_points.publishing.forms import form_of
from talking_points.publishing.image_cells import ImageMode
from talking_points.publishing.read_back import differences, file_digests
from talking_points.publishing.release import Release, ReleaseError, content_sha256, prepare_release
from talking_points.redaction import protect, redact
from talking_points.regular_files import read_bytes
from talking_points.terminal import tell

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

_ADVICE = {
    400: "the Hub refused the request itself; the reason is quoted above",
    401: "the Hub does not accept the token, or got none: run 'hf auth login', or set HF_TOKEN to a valid token with "
    "write access",
    403: "the token is valid but may not write there: use one with the role 'write' that covers this organisation, or "
    "ask its owner for access",
    404: "the organisation, repository or revision does not exist, or the token may not see it: check the spelling of "
    "ORG/NAME and who the token belongs to ('hf auth whoami')",
    409: "the name is taken there already: choose another tag or another repository",
    412: "somebody else committed to the repository meanwhile, and nothing of theirs was overwritten: wait until "
    "they are done, then run the same command again",
    429: "too many requests (the Hub counts commits per hour): wait, then run the same command again; it goes "
    "on where it stopped",
}
REPOSITORY = r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"
"""Names of repositories of the Hub."""

_UNAVAILABLE = "the Hub failed to answer properly: run the same command again; it goes on where it stopped"


@contextmanager
def _unheard(library: str) -> Iterator[None]:
    """Around calls whose warnings are of no use to people: what is wrong is raised."""
    logger = logging.getLogger(library)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


class PublishError(RunError):
    """The Hub did not take what was to go up. ``status`` is its HTTP status, or None where the connection broke."""

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
    if not re.fullmatch(REPOSITORY, repo):
        raise ReleaseError(f"expected a repository of the form org/name, found '{repo}'{repository_in(repo)}")
    with TemporaryDirectory(prefix="talking-points-") as workspace:
        release = prepare_release(
            output, repo, Path(workspace), images=images, public=not private, allow_partial=allow_partial
        )
        tag = tag or release.name
        url = commit = None
        if not dry_run:
            with explaining(f"cannot publish {repo}"):
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
    """Create, upload, verify, tag. Returns the repository's address and the commit that holds the dataset.

    What goes up is compared with the manifest before, and what is there with the manifest after.
    """
    digests = release.check_staged()
    repository = Repository.connect(repo, "dataset", token)
    url, head = repository.open(private)
    # Card, manifest and figures in one commit; figures that the card no longer shows go away with it.
    described = {name: file for name, file in release.files.items() if name not in release.data}
    present = repository.paths(head)
    stale = [name for name in present if name.startswith("figures/") and name not in described]
    head = repository.commit("Update the dataset card", described, stale, head)
    release.check_staged()
    old = [name for name in present if re.fullmatch(r"data/.*\.parquet", name) and name not in release.data]
    head = repository.commit("Upload the data", release.data, old, head)
    repository.check(head, release.data, "data", digests=digests)
    repository.check(head, described, ours=described.__contains__)
    if verify:
        tell(f"{repo}: read it back")
        secret = token.get_secret_value() if token else None
        digests_by_split = file_digests(release.data.values())
        wrong = differences(repo, head, digests_by_split, secret, form_of(release.manifest))
        if wrong:
            raise PublishError(f"{repo} at {head} reads back differently: {'; '.join(wrong)}. It was not tagged")
    repository.tag(tag, head)
    return url, head


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub and the client that reaches it. Files map paths in it to local files or to text."""

    api: HfApi
    name: str
    kind: Literal["dataset", "model"]

    @classmethod
    def connect(cls, name: str, kind: Literal["dataset", "model"], token: SecretStr | None) -> Repository:
        """The repository ``name`` ("org/name"), reached with ``token`` or with one from the standard places."""
        from huggingface_hub import HfApi, get_token

        secret = token.get_secret_value() if token else None
        protect(secret or get_token())
        return cls(HfApi(token=secret), name, kind)

    def open(self, private: bool) -> tuple[str, str | None]:
        """Create it where it is missing. Returns its address and its newest commit."""
        url = self.api.create_repo(self.name, repo_type=self.kind, private=private, exist_ok=True)
        present = self.api.repo_info(self.name, repo_type=self.kind)
        if private and not present.private:
            raise PublishError(
                f"{self.name} exists and is public, but was to be private: make it private in its settings on the "
                "Hub, or publish it as public",
                409,
            )
        return str(url), present.sha

    def paths(self, commit: str | None) -> list[str]:
        """The files that a commit holds."""
        return self.api.list_repo_files(self.name, repo_type=self.kind, revision=commit)

    def commit(self, message: str, files: Mapping[str, Path | str], stale: Iterable[str], parent: str | None) -> str:
        """Add ``files`` and delete ``stale`` ones, in one commit on ``parent``; an unchanged repository gets none.

        Returns the commit that holds them.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, file.encode() if isinstance(file, str) else file) for name, file in files.items()
        ]
        operations += [CommitOperationDelete(name) for name in stale]
        tell(f"{self.name}: {message[0].lower()}{message[1:]}")
        with _unheard("huggingface_hub.hf_api"):  # which says of an unchanged repository that it gets no commit
            return self.api.create_commit(
                self.name, operations, repo_type=self.kind, commit_message=message, parent_commit=parent
            ).oid

    def check(
        self,
        commit: str,
        files: Mapping[str, Path | str],
        folder: str | None = None,
        ours: Callable[[str], bool] = lambda path: True,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse a commit that, among the paths of ours in ``folder``, does not hold exactly ``files``.

        ``digests`` are the sha256 that some of them must have, whatever the local files hold by now.
        """
        wrong = [name for name in self._find_differing(commit, files, folder, digests) if name in files or ours(name)]
        if wrong:
            raise PublishError(
                f"{self.name} at {commit} does not hold what was uploaded: {', '.join(wrong)}. Another publisher may "
                "be writing to it: wait until it is done, then run the same command again",
                412,
            )

    def tag(self, tag: str, commit: str, files: Mapping[str, Path | str] | None = None) -> None:
        """Tag ``commit``. A tag that is there already may stay, at ``commit`` or at one with the same ``files``."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self.api.create_tag(self.name, tag=tag, revision=commit, repo_type=self.kind)
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            refs = self.api.list_repo_refs(self.name, repo_type=self.kind)
            tagged = next((ref.target_commit for ref in refs.tags if ref.name == tag), None)
            if tagged == commit or (tagged and files and files.keys().isdisjoint(self._find_differing(tagged, files))):
                return
            choose = "choose another with --revision, or " if self.kind == "dataset" else ""
            raise PublishError(
                f"the content is in {self.name} at {commit}, but the tag '{tag}' exists already, at {tagged}: "
                f"{choose}delete it on the Hub",
                409,
            ) from None

    def _find_differing(
        self,
        commit: str,
        files: Mapping[str, Path | str],
        folder: str | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Paths in ``folder`` whose size or digest differs, missing and surplus ones included.

        The digest is the sha256 of a large file, and git's own of a regular one: the Hub states no other.
        """
        from huggingface_hub.hf_api import RepoFile

        tree = self.api.list_repo_tree(self.name, folder, repo_type=self.kind, revision=commit, recursive=True)
        found = {str(item.path): item for item in tree if isinstance(item, RepoFile)}
        known = digests or {}
        same = {name for name in files.keys() & found.keys() if _holds(found[name], files[name], known.get(name))}
        return sorted((files.keys() | found.keys()) - same)


def _holds(found: RepoFile, file: Path | str, digest: str | None) -> bool:
    from huggingface_hub.utils.sha import git_hash

    if digest is not None and found.lfs is not None:
        return found.lfs.sha256 == digest
    if isinstance(file, Path) and not file.is_file():
        return False
    size = len(file.encode()) if isinstance(file, str) else file.stat().st_size
    if found.size != size:
        return False
    if found.lfs is not None:
        return found.lfs.sha256 == content_sha256(file)
    return found.blob_id == git_hash(file.encode() if isinstance(file, str) else read_bytes(file))


def dataset_folder(dataset: str | Path, revision: str | None = None, token: SecretStr | None = None) -> Path:
    """The folder ``dataset``, or where the repository "org/name" of the Hub has been downloaded to.

    Raises ``ReleaseError`` for what is neither, ``PublishError`` when the Hub or the connection refuses.
    """
    if Path(dataset).is_dir():
        return Path(dataset)
    if not re.fullmatch(REPOSITORY, str(dataset)):
        raise ReleaseError(f"expected a dataset folder or a repository org/name, found {ascii(str(dataset))[:200]}")
    from huggingface_hub import snapshot_download

    with explaining(f"cannot read {dataset}"):
        return Path(
            snapshot_download(
                str(dataset),
                repo_type="dataset",
                revision=revision,
                allow_patterns=["data/*.parquet", "manifest.json", "figures/*"],
                token=token.get_secret_value() if token else None,
            )
        )


@contextmanager
def explaining(failure: str) -> Iterator[None]:
    """Errors of the Hub's client as a ``PublishError`` that says what to do.

    The cause is cut off: its frames hold request headers, and so the token.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    bounded_hub()
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as raised:
        # The upload of a large file and the check of a card wrap their errors once more.
        wrapped = isinstance(raised, RuntimeError | ValueError) and not isinstance(raised, HfHubHTTPError)
        error = raised.__cause__ if wrapped and raised.__cause__ else raised
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            raise PublishError(f"{failure}: {_first_line(error)}\n{_advice(error)}", status) from None
        if isinstance(error, httpx2.RequestError | ConnectionError):
            raise PublishError(
                f"{failure}: the connection to {_endpoint()} broke ({redact(repr(error))})\n"
                "run the same command again; what was uploaded is not sent twice"
            ) from None
        if not of_the_answer(raised):
            raise
        reason = redact(f"{type(raised).__name__}: {raised}".partition("\n")[0][:300])
        raise PublishError(
            f"{failure}: what {_endpoint()} answered, or what became of it here, cannot be used ({reason})\n"
            "check HF_ENDPOINT, the disk and the folder of the Hub's cache, then run the same command again",
            400,
        ) from None


def _advice(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    advice = _ADVICE.get(status, _UNAVAILABLE)
    wait = error.response.headers.get("Retry-After")
    return f"{advice} (in {wait} seconds)" if status == 429 and wait else advice


def _first_line(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    reason = error.server_message or error.response.reason_phrase
    return redact(f"HTTP {status} from {_endpoint()}: {reason}")


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
