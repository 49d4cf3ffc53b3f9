#!/bin/sh
# Installs axe-core, which tests/console/browser looks at pages with. Does nothing where nothing has changed.
# Needs Node 20 or newer with npm.
set -eu
cd "$(dirname "$0")"

if [ ! -f node_modules/.installed ] || [ package-lock.json -nt node_modules/.installed ]; then
    npm ci --no-audit --no-fund --loglevel=error
    touch node_modules/.installed
fi
