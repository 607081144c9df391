#!/usr/bin/env bash
# Installs what a bare Debian 12 machine lacks to build and test lowp. Asks for root only if something is missing.
set -euo pipefail
packages=(g++ cmake ninja-build pkg-config python3 clang-format git
          libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev libreadline-dev libboost-dev
          libssl-dev openssl prometheus-cpp-dev libeigen3-dev libgtest-dev)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing ${missing[*]}"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
