#!/bin/sh
# Installs from Debian, or Ubuntu with Debian's names, what the tests drive: Chromium and Prometheus.
# Does nothing where both are there. Needs root, or sudo that asks for nothing.
set -eu

missing=
command -v chromium > /dev/null || missing="$missing chromium"
{ command -v prometheus && command -v promtool; } > /dev/null || missing="$missing prometheus"
[ -n "$missing" ] || exit 0

if ! command -v apt-get > /dev/null; then
    echo "These programs are missing:$missing. Install them with your system's packages, then try again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2> /dev/null; then
    as_root=sudo
else
    echo "These programs are missing:$missing. Install them as root, then try again: apt-get install$missing" >&2
    exit 1
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086  Words are packages.
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $missing
