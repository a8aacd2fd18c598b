#!/bin/sh
# A Chromium without a window, for the tests that look at pages: found, or put into .venv/browser.
#
#   scripts/get_browser.sh [.venv]
#
# Prints its path. The npm package holds the program and the few libraries it needs (75 MB), so that
# this works without root. Where there is no npm, a CI machine's root takes Debian's package; on yours
# nothing is installed into the system unasked. Status 1: no browser, and those tests are skipped.
set -eu
venv=${1:-.venv}
version=147.0.0

for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  command -v "$name" && exit 0
done
test -x "$venv/browser/chromium" && echo "$venv/browser/chromium" && exit 0

unpack() {  # a .br file to standard output; node has the decompressor built in
  node -e 'const {pipeline} = require("stream"), fs = require("fs"), zlib = require("zlib");
    pipeline(fs.createReadStream(process.argv[1]), zlib.createBrotliDecompress(), process.stdout,
      (error) => { if (error) process.exit(1); })' "$1"
}

from_npm() {
  test "$(uname -s) $(uname -m)" = "Linux x86_64" && command -v npm >&2 || return 1
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && npm pack --silent "@sparticuz/chromium@$version" >&2 && tar -xzf ./*.tgz) || return 1
  mkdir -p "$work/browser/lib"
  unpack "$work/package/bin/chromium.br" > "$work/browser/program" || return 1
  unpack "$work/package/bin/al2023.tar.br" | tar -x --strip-components=1 -C "$work/browser/lib" || return 1
  unpack "$work/package/bin/fonts.tar.br" | tar -x -C "$work/browser" || return 1
  cat > "$work/browser/fonts.conf" <<'CONF'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir prefix="relative">fonts</dir>
</fontconfig>
CONF
  cat > "$work/browser/chromium" <<'RUN'
#!/bin/sh
# Its own libraries serve where the system has none; its own font, too, as without any it crashes.
here=$(dirname "$(readlink -f "$0")")
if ldd "$here/program" | grep -q "not found"; then export LD_LIBRARY_PATH="$here/lib"; fi
FONTCONFIG_FILE="$here/fonts.conf" exec "$here/program" "$@"
RUN
  chmod +x "$work/browser/program" "$work/browser/chromium"
  "$work/browser/chromium" --version >&2 || return 1
  rm -rf "$venv/browser"
  mv "$work/browser" "$venv/browser" && echo "$venv/browser/chromium"
}

from_debian() {
  test "${CI:-}" != "" && test "$(id -u)" = 0 && command -v apt-get >&2 || return 1
  apt-get update -qq >&2 && apt-get install -qq -y --no-install-recommends chromium-headless-shell >&2 || return 1
  command -v chromium-headless-shell
}

from_npm || from_debian || { echo "no browser could be had: tests of pages are skipped" >&2; exit 1; }
