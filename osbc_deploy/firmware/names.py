"""Which names a C library may have: prefix of its files and symbols."""

from __future__ import annotations

import re

from osbc_deploy.errors import UsageError

__all__ = ["check_name"]

_KEYWORDS = """
    alignas alignof auto bool break case char const constexpr continue default do double else enum
    extern false float for goto if inline int long nullptr register restrict return short signed
    sizeof static static_assert struct switch thread_local true typedef typeof typeof_unqual union
    unsigned void volatile while asm fortran
    and and_eq bitand bitor catch char8_t char16_t char32_t class co_await co_return co_yield compl
    concept const_cast consteval constinit decltype delete dynamic_cast explicit export friend
    mutable namespace new noexcept not not_eq operator or or_eq private protected public
    reinterpret_cast requires static_cast template this throw try typeid typename using virtual
    wchar_t xor xor_eq
"""
"""Of C to C23 and of C++, which includes the header as well."""

_HEADERS = """
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign
    stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdmchar stdnoreturn string
    tgmath threads time uchar wchar wctype
    aio cpio devctl dirent dlfcn endian fcntl fmtmsg fnmatch ftw glob grp iconv langinfo libgen
    libintl monetary mqueue ndbm netdb nl_types poll pthread pwd regex sched search semaphore spawn
    strings stropts syslog tar termios trace ulimit unistd utime utmpx wordexp
    aliases alloca ar argp argz byteswap crypt elf endian envz err error execinfo features
    fpu_control fstab fts gconv getopt gshadow ieee754 ifaddrs lastlog link malloc mcheck memory
    mntent nss obstack paths printf pty re_comp regexp resolv sgtty shadow stab stdio_ext syscall
    sysexits syslimits termio thread_db tic ttyent ucontext unwind ustat utmp values varargs wait
    xlocale
    ansi machine newlib reent
    arm_acle arm_math arm_mve arm_neon cpuid intrin intrinsics mm3dnow mm_malloc omp openacc
    quadmath quadmath_weak stdfix
    conio direct dos io process share windows winsock winsock2 tchar
    freertos list queue semphr task timers
"""
"""NAME.h of C to C23, POSIX.1-2024, glibc, newlib, GCC, Windows and FreeRTOS."""

_DEVICES = "aux con nul prn " + " ".join(f"com{i} lpt{i}" for i in range(1, 10))
"""File names, whatever their ending, that Windows does not give out."""

_TAKEN = {
    **dict.fromkeys(_DEVICES.split(), "is a device on Windows"),
    **{name: f"would shadow the system's {name}.h" for name in _HEADERS.split()},
    **dict.fromkeys(_KEYWORDS.split(), "is a keyword of C or C++"),
    # The program that uses the library has one of its own.
    "main": "would take the place of the program's main.c",
}


def check_name(name: str) -> None:
    """Refuse a name that cannot be the prefix of files and symbols, or would shadow others'.

    File systems may not tell upper from lower case, so neither does this.

    Raises
    ------
    UsageError
        With the reason.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name):
        wrong = "cannot be a prefix in C"
    elif "__" in f"{name}_":
        # As a prefix, a last underscore becomes two.
        wrong = "cannot be a prefix in C: names with two underscores in a row are the compiler's"
    elif name.lower().endswith("intrin"):
        raise UsageError(f"name: {name!r} is that of a header of intrinsics. Choose another.")
    elif reason := _TAKEN.get(name.lower()):
        raise UsageError(f"name: {name!r} {reason}. Choose another, such as {name}_net.")
    else:
        return
    raise UsageError(
        f"name: {name!r} {wrong}. Use up to 31 letters, digits and single underscores, a letter "
        "first."
    )
