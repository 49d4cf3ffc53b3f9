"""jobs.documents: files as content blocks; what cannot be sent fails its row alone."""

import base64
from pathlib import Path

import pytest

from overnight import limits
from overnight.jobs.documents import NotReadable, block

BYTES = b"\x00\xff%PDF"


@pytest.mark.parametrize(
    ("name", "kind", "media_type"),
    [
        ("a.pdf", "document", "application/pdf"),
        ("A.PDF", "document", "application/pdf"),
        ("a.png", "image", "image/png"),
        ("a.jpg", "image", "image/jpeg"),
        ("a.JPEG", "image", "image/jpeg"),
        ("a.gif", "image", "image/gif"),
        ("a.webp", "image", "image/webp"),
    ],
)
def test_pdfs_and_images_are_sent_in_base64(name: str, kind: str, media_type: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BYTES)
    data = base64.b64encode(BYTES).decode()
    assert block(tmp_path, name) == {
        "type": kind,
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


@pytest.mark.parametrize("suffix", ["txt", "md", "csv", "html", "xml", "json", "eml", "LOG"])
def test_texts_are_sent_as_text(suffix: str, tmp_path: Path) -> None:
    name = f"a.{suffix}"
    (tmp_path / name).write_text("Größe\n", encoding="utf-8")
    source = {"type": "text", "media_type": "text/plain", "data": "Größe\n"}
    assert block(tmp_path, name) == {"type": "document", "source": source}


@pytest.mark.parametrize("name", ["a.docx", "a", ".pdf", "a.pdf.exe"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BYTES)
    with pytest.raises(NotReadable) as error:
        block(tmp_path, name)
    assert str(error.value).startswith(f"{name} is no document that can be sent; these can: .pdf, .png,")


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_the_size_that_counts_is_the_one_in_base64(tmp_path: Path) -> None:
    most = limits.JOB_DOCUMENT_BYTES_MAX // 4 * 3
    found = block(tmp_path, sparse(tmp_path / "a.pdf", most).name)
    assert len(found["source"]["data"]) == limits.JOB_DOCUMENT_BYTES_MAX
    with pytest.raises(NotReadable, match=f"{limits.JOB_DOCUMENT_BYTES_MAX} can be sent"):
        block(tmp_path, sparse(tmp_path / "b.pdf", most + 1).name)


def test_a_file_far_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match=r"^a\.pdf has \d+ bytes in base64"):
        block(tmp_path, sparse(tmp_path / "a.pdf", 2**40).name)


def test_an_empty_file_is_sent_for_the_server_to_judge(tmp_path: Path) -> None:
    assert block(tmp_path, sparse(tmp_path / "a.pdf", 0).name)["source"]["data"] == ""


def test_what_cannot_be_read_is_named_without_its_directory(tmp_path: Path) -> None:
    (tmp_path / "dir.pdf").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"Gr\xf6\xdfe")
    for name, message in (
        ("gone.pdf", "cannot read gone.pdf: No such file or directory"),
        ("dir.pdf", "cannot read dir.pdf: Is a directory"),
        ("latin.txt", "latin.txt is not UTF-8: "),
        ("a\0b.pdf", "cannot read 'a\\x00b.pdf': embedded null byte"),
        (f"{'a' * 300}.pdf", "cannot read aaa"),
    ):
        with pytest.raises(NotReadable) as error:
            block(tmp_path, name)
        assert str(error.value).startswith(message)
        assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["../secret.txt", "{outside}/secret.txt", "link.txt", "a/../../secret.txt"])
def test_a_row_names_no_file_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "inbox"
    (folder / "a").mkdir(parents=True)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(NotReadable, match=r"secret\.txt lies outside|link\.txt lies outside"):
        block(folder, name.replace("{outside}", str(tmp_path)))


def test_an_absolute_name_within_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("within")
    assert block(tmp_path, str(tmp_path / "a.txt"))["source"]["data"] == "within"
