"""Finding images: whatever a folder of photos or a list can hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from encoded_images import encoded
from PIL import Image

from edgecsd.errors import BadInputError
from edgecsd.photos.boxes import Box
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet, load_in_order

# ---------------------------------------------------------------------------------------------------- finding


def test_a_folder_is_searched_to_any_depth_in_a_fixed_order(photos: Path) -> None:
    found = find_images(photos)
    assert len(found) == 24
    assert list(found.ids) == sorted(found.ids)
    assert "second/deeper/photo-02.jpg" in found.ids
    assert all(found.path(p).is_file() for p in range(len(found)))
    assert found.labels is None


def test_hidden_files_foreign_files_and_folders_with_an_image_name_are_not_images(
    tmp_path: Path, small: Image.Image
) -> None:
    data = encoded(small, "JPEG")
    for name in ("a.JPG", "b.jpeg", ".hidden.jpg", "notes.txt", "photo.jpg.part", ".cache/c.jpg", "._a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    assert find_images(tmp_path).ids == ("a.JPG", "b.jpeg")


def test_names_with_spaces_and_any_script_are_read(tmp_path: Path, small: Image.Image) -> None:
    names = sorted(
        ["with space.png", "ümläut.png", "写真.png", "a,b;c.png", "emoji \U0001f600.png", "%20.png", "#1?.png"]
    )
    for name in names:
        small.save(tmp_path / name)
    found = find_images(tmp_path)
    assert list(found.ids) == names
    assert all(not item.problem for item in load_in_order(found, range(len(found)), lambda p, image: ()))


def test_a_name_that_is_not_utf8_is_reported_and_not_fatal(tmp_path: Path, small: Image.Image) -> None:
    with open(os.fsencode(tmp_path) + b"/bad-\xff.png", "wb") as handle:
        handle.write(encoded(small, "PNG"))
    (item,) = load_in_order(find_images(tmp_path), [0], lambda p, image: ())
    assert "not valid UTF-8" in item.problem
    item.problem.encode()  # can be printed


def test_an_empty_folder_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no image in it \(.bmp, .gif"):
        find_images(tmp_path)
    with pytest.raises(BadInputError, match="no such folder or list"):
        find_images(tmp_path / "absent")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"as a folder, a \.csv list"):
        find_images(tmp_path / "photo.jpg")


def test_split_needs_a_list(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`split` train needs a CSV list"):
        find_images(tmp_path, split="train")


def test_symlink_loops_end(tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "dangling.png").symlink_to("absent.png")
    (tmp_path / "good.png").symlink_to("a.png")
    found = find_images(tmp_path)
    assert found.ids == ("a.png", "dangling.png", "good.png", "self.png")
    problems = {found.ids[i.position]: i.problem for i in load_in_order(found, range(4), lambda p, image: ())}
    assert [name for name, problem in problems.items() if problem] == ["dangling.png", "self.png"]
    assert "dangling.png: No such file" in problems["dangling.png"]
    root_loop = tmp_path / "root"
    root_loop.symlink_to("root")
    with pytest.raises(BadInputError, match="no such folder"):
        find_images(root_loop)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for item in load_in_order(find_images(tmp_path), [0, 1], lambda p, image: ()):
        assert "not a file" in item.problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(BadInputError, match="closed: cannot be listed"):
        find_images(tmp_path)


# ------------------------------------------------------------------------------------------------------ lists


def write_list(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "list.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_a_list_gives_ids_labels_and_splits(tmp_path: Path) -> None:
    file = write_list(tmp_path, "path,label,split\nb/2.jpg,dog,test\na/1.jpg,cat,train\nc/3.jpg,cat,train\n")
    everything = find_images(file)
    assert everything == ImageSet(tmp_path, ("a/1.jpg", "b/2.jpg", "c/3.jpg"), ("cat", "dog", "cat"))
    assert find_images(file, split="train").ids == ("a/1.jpg", "c/3.jpg")
    assert everything.subset([2, 0]) == ImageSet(tmp_path, ("c/3.jpg", "a/1.jpg"), ("cat", "cat"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_line_ends_and_quotes_do_not_matter(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["path,note", '"a, b.jpg","two ""words"""', "ü.jpg,", ""])
    assert find_images(write_list(tmp_path, text, encoding)).ids == ("a, b.jpg", "ü.jpg")


def test_rows_shorter_or_longer_than_the_header_are_taken(tmp_path: Path) -> None:
    found = find_images(write_list(tmp_path, "path,label\na.jpg\nb.jpg,dog,extra\n"))
    assert found.labels == ("", "dog")
    assert find_images(write_list(tmp_path, "path,label\na.jpg,  \nb.jpg,big dog\n")).labels == ("", "big dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no 'path' column .found: nothing"),
        ("file,label\na.jpg,cat\n", "no 'path' column .found: file, label"),
        ("path\n", "the list is empty"),
        ("path\na.jpg\nb.jpg\na.jpg\n", "a.jpg is listed more than once"),
        ("path\na.jpg\nsub/../a.jpg\n", "a.jpg is listed more than once"),
        ("path\n./a.jpg\na.jpg\n", "a.jpg is listed more than once"),
        ("path\n../outside.jpg\n", r"\.\./outside.jpg lies outside the list's folder"),
        ("path\nsub/../../outside.jpg\n", "lies outside the list's folder"),
        ("path\n..\n", "lies outside the list's folder"),
        ("path\n/etc/passwd\n", "/etc/passwd lies outside the list's folder"),
        ("path,label\n,cat\n", "a row has no usable path"),
        ("path\n   \n", "a row has no usable path"),
        ("path\na\0.jpg\n", "a row has no usable path"),
    ],
)
def test_bad_lists_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        find_images(write_list(tmp_path, text))
    assert "list.csv" in str(caught.value)


def test_unknown_splits_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no row has split 'val'; there are: test, train"):
        find_images(write_list(tmp_path, "path,split\na.jpg,train\nb.jpg,test\n"), split="val")
    with pytest.raises(BadInputError, match="needs a 'split' column"):
        find_images(write_list(tmp_path, "path\na.jpg\n"), split="val")


def test_lists_in_another_encoding_or_with_giant_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not readable as a UTF-8 CSV"):
        find_images(write_list(tmp_path, "path\nü.jpg\n", "latin-1"))
    with pytest.raises(BadInputError, match="not readable as a UTF-8 CSV"):
        find_images(write_list(tmp_path, "path\n" + "a" * 200_000 + "\n"))


def test_listed_files_that_are_missing_are_named_and_not_fatal(tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    found = find_images(write_list(tmp_path, "path\na.png\ngone.png\n"))
    first, second = load_in_order(found, [0, 1], lambda p, image: ())
    assert not first.problem
    assert second.problem == f"{tmp_path / 'gone.png'}: No such file or directory"


def test_a_list_gives_boxes(tmp_path: Path) -> None:
    text = "path,x1,y1,x2,y2,label\nb.jpg,1,2.5,30,40,cat\na.jpg,,,,,dog\n"
    found = find_images(write_list(tmp_path, text))
    assert found == ImageSet(tmp_path, ("a.jpg", "b.jpg"), ("dog", "cat"), (None, Box(1, 2.5, 30, 40)))
    assert found.subset([1, 0]).boxes == (Box(1, 2.5, 30, 40), None)
    assert find_images(write_list(tmp_path, "path,x1,y1,x2,y2\na.jpg,,,,\nb.jpg\n")).boxes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,x1,y1,x2\na.jpg,1,2,3\n", "a box needs all columns x1, y1, x2, y2; found only x1, y1, x2"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3,\n", "a.jpg: x1, y1, x2, y2 = '1', '2', '3', ''; four numbers are needed"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3,four\n", "'four'; four numbers are needed"),
        ("path,x1,y1,x2,y2\na.jpg,1,2,3,nan\n", "a.jpg: box .* must be finite"),
    ],
)
def test_lists_with_bad_boxes_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        find_images(write_list(tmp_path, text))


def test_boxes_are_given_by_id(tmp_path: Path) -> None:
    images = ImageSet(tmp_path, ("a.jpg", "b.jpg"))
    assert images.with_boxes({"b.jpg": Box(1, 2, 3, 4)}).boxes == (None, Box(1, 2, 3, 4))
    assert images.with_boxes({"b.jpg": None}) == images
    with pytest.raises(BadInputError, match=r"2 boxes are of images not in it, the first: c\.jpg"):
        images.with_boxes({"d.jpg": Box(1, 2, 3, 4), "c.jpg": None})
