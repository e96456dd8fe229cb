"""The self-tests hold this pack's numbers, and where a Kotlin compiler is installed that one compiles and runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecsd.golden.for_apps import JAVASCRIPT, KOTLIN, SWIFT, render
from edgecsd.golden.pack import GoldenPack, read_pack

NAMES = (KOTLIN, SWIFT, JAVASCRIPT)
# An app whose tensors and embeddings are the pack's own; the argument names what it does wrong.
KOTLIN_APP = """
import java.io.File

class PackApp(val pack: File, val mistake: String) : GoldenApp {
    private fun same(folder: String, data: ByteArray) =
        File(pack, folder).listFiles()!!.firstOrNull { it.readBytes().contentEquals(data) }

    override fun preprocess(photo: ByteArray): ByteArray {
        val tensor = File(pack, "tensors/" + same("photos", photo)!!.nameWithoutExtension + ".bin").readBytes()
        return if (mistake == "channels") ByteArray(tensor.size) { tensor[it - 2 * (it % 3) + 2] } else tensor
    }

    override fun embed(tensor: ByteArray): FloatArray {
        val known = same("tensors", tensor) ?: return FloatArray(DIM) { 0.25f }
        val data = File(pack, "embeddings/" + known.name).readBytes()
        val values = java.nio.ByteBuffer.wrap(data).order(java.nio.ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(DIM) { if (mistake == "NaN") Float.NaN else values.get() }
    }
}

fun main(args: Array<String>) {
    for (mistake in listOf("", "channels", "NaN")) {
        val result = GoldenTest(PackApp(File(args[0]), mistake)) { name -> File(args[0], name).readBytes() }.run()
        println("== $mistake ${result.passed}")
        result.lines.forEach { println(it) }
    }
}
"""


@pytest.fixture(scope="module")
def pack(golden: Path) -> GoldenPack:
    return read_pack(golden / "pack")


def outside_of_strings(text: str) -> Iterator[str]:
    """The code without comments and string literals; what a literal interpolates counts as string."""
    for line in text.splitlines():
        yield re.sub(r'"(\\.|[^"\\])*"|`[^`]*`', "", line).split("//")[0].split("/**")[0]


@pytest.mark.parametrize("name", NAMES)
def test_brackets_are_balanced_and_nothing_is_left_of_the_template(pack: GoldenPack, name: str) -> None:
    text = render(name, pack)
    assert re.findall(r"@[A-Z0-9_]+@", text) == [] and "\t" not in text
    opened: list[str] = []
    for line in outside_of_strings(text):
        for each in line:
            if each in "([{":
                opened.append(each)
            elif each in ")]}":
                assert opened and opened.pop() + each in ("()", "[]", "{}"), line
    assert opened == []


@pytest.mark.parametrize("name", NAMES)
def test_the_pack_wrote_what_is_rendered(golden: Path, pack: GoldenPack, name: str) -> None:
    text = (golden / "pack" / "selftest" / name).read_text()
    assert text == render(name, pack)
    assert pack.artifact.sha256 in text and pack.artifact.name in text


@pytest.mark.parametrize("name", [KOTLIN, SWIFT])
def test_kotlin_and_swift_hold_the_numbers(pack: GoldenPack, name: str) -> None:
    text, limits = render(name, pack), pack.tolerances
    held = {
        "fingerprint": pack.fingerprint,
        "size": 48,
        "grid": pack.grid,
        "k": 5,
        "tensormean": limits.tensor_mean,
        "tensormax": limits.tensor_max,
        "cosine": limits.cosine,
        "endtoendcosine": limits.end_to_end_cosine,
        "decodedmean": limits.decoded_mean,
        "normerror": limits.norm_error,
        "maxdifference": limits.max_difference,
        "overlap": limits.overlap,
    }
    constants = {
        found[1].replace("_", "").lower(): found[2].strip('"')
        for found in re.finditer(r"(?:const val|static let) (\w+)(?:: \w+)? = ([^\s\[]+)", text)
    }
    for word, value in held.items():
        assert constants[word] == str(value), word
    for item in pack.items:
        assert str(item.width) in text and all(json.dumps(each) in text for each in item.ids)
    assert all(json.dumps(mistake) in text for mistake in pack.mistakes)


def test_ids_are_quoted_as_each_language_wants(pack: GoldenPack) -> None:
    item = pack.items[0].model_copy(update={"ids": ('a"b\\c', "$x", "\n", "caf\u00e9")})
    odd = pack.model_copy(update={"items": (item,)})
    assert r'listOf("a\"b\\c", "\$x", "\n", "caf\u00e9")' in render(KOTLIN, odd)
    assert r'ids: ["a\"b\\c", "$x", "\u{a}", "caf' + '\u00e9"]' in render(SWIFT, odd)


def test_the_kotlin_self_test_compiles_and_finds_mistakes(golden: Path, pack: GoldenPack, tmp_path: Path) -> None:
    if not shutil.which("kotlinc") or not shutil.which("java"):
        pytest.skip("no kotlinc and java on PATH")
    app = KOTLIN_APP.replace("DIM", str(pack.artifact.metadata.dim))
    (tmp_path / "App.kt").write_text(app)
    sources = [golden / "pack" / "selftest" / KOTLIN, tmp_path / "App.kt"]
    jar = tmp_path / "app.jar"
    made = subprocess.run(
        ["kotlinc", *sources, "-include-runtime", "-d", jar], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run(["java", "-jar", jar, golden / "pack"], capture_output=True, text=True, check=False)
    right, channels, not_numbers = done.stdout.split("== ")[1:]
    assert right.splitlines() == [
        " true",
        "pass  preprocessing: 8 of 8",
        "pass  runtime: 8 of 8",
        "pass  end to end: 8 of 8",
    ]
    assert channels.startswith("channels false") and "this looks like: channels swapped (BGR for RGB)" in channels
    assert "pass  runtime" in channels and "FAIL  end to end" in channels
    assert not_numbers.startswith("NaN false") and "FAIL  runtime: 0 of 8" in not_numbers
