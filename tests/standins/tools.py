"""Stand-ins of aiecc, Peano's clang++ and xclbinutil, strict about what they are called with, where wheels put them."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

CLANG = """
import os, struct, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print(os.environ.get("STANDIN_CLANG", "clang version 21.0.0 (stand-in c9c5ecb7)")); sys.exit(0)
if os.environ.get("STANDIN_FAIL") == "clang++":
    sys.exit("kernel.cc:1:1: error: made to fail")
flags = {a for a in arguments if a.startswith("-")}
needed = {"--target=aie2-none-unknown-elf", "-std=c++20", "-O2", "-DNDEBUG", "-fstack-size-section", "-c", "-o"}
assert needed <= flags, needed - flags
include = [a[2:] for a in arguments if a.startswith("-I")]
assert any(os.path.isdir(os.path.join(folder, "aie_api")) for folder in include), include
defined = sorted(a for a in arguments if a.startswith("-D") and a[2:].split("=")[0] in
                 ("TILE_SIZE", "SCORES_INT8", "SINGLE_TILE"))
assert len(defined) == 2 and ("-DSINGLE_TILE" in defined) != any("TILE_SIZE=" in d for d in defined), defined
source, target = arguments[arguments.index("-c") + 1], arguments[arguments.index("-o") + 1]
assert "attention" in open(source).read()
frames = [int(n) for n in os.environ.get("STANDIN_FRAMES", "960,64").split(",")]
stack = b"".join(struct.pack("<I", 0) + bytes([n & 0x7F | 0x80, n >> 7]) for n in frames)  # LEB128
names = b"\\0.stack_sizes\\0.names\\0"
elf = bytearray(52) + struct.pack("<40x") + b"".join(
    struct.pack("<10I", name, kind, 0, 0, offset, size, 0, 0, 0, 0)
    for name, kind, offset, size in ((1, 1, 172, len(stack)), (14, 3, 172 + len(stack), len(names)))
) + stack + names
elf[:6] = b"\\x7fELF\\x01\\x01"
struct.pack_into("<HH", elf, 16, 1, 264)
struct.pack_into("<I", elf, 32, 52)
struct.pack_into("<HHH", elf, 46, 40, 3, 2)
open(target, "wb").write(elf + " ".join(defined).encode())
"""

AIECC = """
import hashlib, os, shutil, struct, sys
arguments = sys.argv[1:]
if arguments == ["--aie-version"]:
    print("aiecc 1.4.2 (stand-in)"); print("git SHA: " + os.environ.get("STANDIN_SHA", "0123")); sys.exit(0)
fail = os.environ.get("STANDIN_FAIL")
if fail == "aiecc":
    sys.exit("error: made to fail")
if fail == "interrupt":
    import signal; os.kill(os.getppid(), signal.SIGINT); import time; time.sleep(5)
*options, design = arguments
names = dict(option.split("=", 1) if "=" in option else (option, "") for option in options)
known = {"--get-xclbin", "--xclbin-name", "--get-npu-insts", "--npu-insts-name", "--peano", "--alloc-scheme",
         "--tmpdir"}
assert set(names) <= known, set(names) - known
assert names["--alloc-scheme"] == "basic-sequential"
assert os.path.isfile(os.path.join(names["--peano"], "bin", "clang++"))
assert ("--get-xclbin" in names) == ("--xclbin-name" in names)
text, kernel = open(design).read(), open("kernel.o", "rb").read()
kernel = kernel[kernel.index(b"-D"):].decode()
assert "runtime_sequence" in text
os.makedirs(names["--tmpdir"])
if fail != "empty":
    open(names["--npu-insts-name"], "w").write(hashlib.sha256(text.encode()).hexdigest())
if "--get-xclbin" in names:
    assert shutil.which("xclbinutil"), "xclbinutil is not on PATH"
    device = text.split("aie.runtime_sequence")[0]
    open(names["--xclbin-name"], "w").write(kernel + hashlib.sha256(device.encode()).hexdigest())
    sizes = [int(n) for n in os.environ.get("STANDIN_SIZES", "9000,512").split(",")]
    elf = bytearray(52) + bytearray(40) + b"".join(
        struct.pack("<10I", 0, 1, flags, 0, 0, size, 0, 0, 0, 0) for flags, size in zip((6, 2), sizes)
    )
    elf[:6] = b"\\x7fELF\\x01\\x01"
    struct.pack_into("<HH", elf, 16, 2, 264)
    struct.pack_into("<I", elf, 32, 52)
    struct.pack_into("<HH", elf, 46, 40, 3)
    open(os.path.join(names["--tmpdir"], "core_0_2.elf"), "wb").write(elf)
"""

BINDINGS = """
import sys
sys.path.insert(0, {tests!r})
from standins import iron as iron_standin
sys.modules.update(iron_standin.install())
"""


def executable(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def install(folder: Path) -> dict[str, str]:
    """Put the tools into `folder`; the variables by which they are found."""
    executable(folder / "mlir_aie" / "bin" / "aiecc", AIECC)
    (folder / "mlir_aie" / "include" / "aie_api").mkdir(parents=True)
    package = folder / "mlir_aie" / "python" / "aie"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BINDINGS.format(tests=str(Path(__file__).parents[1])))
    executable(folder / "llvm-aie" / "bin" / "clang++", CLANG)
    executable(folder / "xrt" / "xclbinutil", "")
    return {
        "MLIR_AIE_INSTALL_DIR": str(folder / "mlir_aie"),
        "PEANO_INSTALL_DIR": str(folder / "llvm-aie"),
        "AIE_XCLBINUTIL": str(folder / "xrt" / "xclbinutil"),
    }
