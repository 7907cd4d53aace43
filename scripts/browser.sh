#!/usr/bin/env bash
# Installs with apt the Chromium that the tests of the web page drive, where there is none and it can be had. Where it
# cannot, those tests are skipped and say so: this never fails.
set -uo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
command -v apt-get >/dev/null || exit 0
sudo=
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || exit 0
    sudo="sudo -n"
fi
echo "Installing chromium, for the tests of the web page" >&2
{ $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends chromium; } >/dev/null ||
    echo "chromium cannot be installed: the tests of the web page are skipped" >&2
exit 0
