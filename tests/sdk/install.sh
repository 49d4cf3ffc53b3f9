#!/bin/sh
# Installs the official SDKs that tests/sdk runs beside the one in .venv: two older ones for Python, one for TypeScript.
# Does nothing where nothing has changed. Needs .venv (make setup) and Node 20 or newer with npm.
set -eu
cd "$(dirname "$0")/../.."

for major in 0 1; do
    environment=.venv-sdk-$major
    wanted=tests/sdk/python/sdk-$major.txt
    if [ ! -f $environment/.installed ] || [ $wanted -nt $environment/.installed ]; then
        rm -rf $environment
        .venv/bin/python -m venv $environment
        $environment/bin/pip install --quiet --requirement $wanted
        touch $environment/.installed
    fi
done

modules=tests/sdk/typescript/node_modules
if [ ! -f $modules/.installed ] || [ tests/sdk/typescript/package-lock.json -nt $modules/.installed ]; then
    npm ci --prefix tests/sdk/typescript --no-audit --no-fund --loglevel=error
    touch $modules/.installed
fi
