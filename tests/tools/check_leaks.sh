#!/usr/bin/env bash
# Looks for leaks and wrong accesses of the extension module, under Python without torch:
#   tests/tools/check_leaks.sh lsan      LeakSanitizer of GCC, 0.1 s; test_leaks.py runs this
#   tests/tools/check_leaks.sh valgrind  memcheck: invalid accesses, uninitialised values, leaks, 5 s
# Further arguments go to leak_script.py. PYTHON is the interpreter, with the package installed.
# LeakSanitizer needs no suppressions: Python's own memory stays reachable. python.supp is for
# memcheck, which does not report blocks that are only "possibly lost".
#
# Seen with GCC 12.2, valgrind 3.19, Python 3.11: both clean, and both exit with 23 for `leak`.
set -euo pipefail
PYTHON=${PYTHON:-python3}
TOOLS=$(realpath "$(dirname "$0")")
SCRIPT="-m tests.tools.leak_script"
cd "$TOOLS/../.."
TOOL=${1:-lsan}
shift || true

export PYTHONMALLOC=malloc # Its own allocator hides what is lost.
case $TOOL in
lsan)
  LIBRARY=$("${CC:-gcc}" -print-file-name=liblsan.so)
  test -e "$LIBRARY" || { echo "no liblsan.so, it comes with GCC" >&2; exit 2; }
  LSAN_OPTIONS=exitcode=23 LD_PRELOAD=$LIBRARY "$PYTHON" $SCRIPT "$@"
  ;;
valgrind)
  valgrind --quiet --suppressions="$TOOLS/python.supp" --error-exitcode=23 --leak-check=full --show-leak-kinds=definite,indirect \
    --errors-for-leak-kinds=definite,indirect "$PYTHON" $SCRIPT "$@"
  ;;
*)
  echo "usage: $0 [lsan|valgrind] [leak]" >&2
  exit 2
  ;;
esac
