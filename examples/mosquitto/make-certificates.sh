#!/bin/sh
# A folder to try Mosquitto with: certificate authority, certificates, password file, access rules, configuration.
#
# Usage: make-certificates.sh [FOLDER [HOST]]
#   FOLDER  is made, and must not exist yet; default: try
#   HOST    name or IP address that clients connect to, as `mqtt.host` has it; default: localhost
#
# Afterwards: mosquitto -c FOLDER/mosquitto.conf
# Throw-away: the authority's key lies beside the certificates without a password. For lasting use take your own authority.
set -eu
umask 077
LC_ALL=C
export LC_ALL

folder=${1:-try}
host=${2:-localhost}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
days=365

fail() {
    echo "make-certificates.sh: $1" >&2
    exit 1
}

[ $# -le 2 ] || fail "usage: make-certificates.sh [FOLDER [HOST]]"
case $host in
    '' | *[!A-Za-z0-9.:-]* | -*) fail "'$host' is no host name and no IP address" ;;
    *:*) name="IP:$host" ;;
    *[!0-9.]*) name="DNS:$host" ;;
    *) name="IP:$host" ;;
esac
command -v openssl >/dev/null || fail "openssl is not installed"
command -v mosquitto_passwd >/dev/null || fail "mosquitto_passwd is not installed (it comes with Mosquitto)"
[ ! -e "$folder" ] || fail "$folder exists already; nothing was changed"
mkdir -p -- "$folder"
cd -- "$folder"

# certificate NAME COMMON_NAME EXTENSIONS: a key and a certificate; the authority signs its own.
certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout "$1.key" -out "$1.csr" -subj "/O=cti-mqtt first try/CN=$2" 2>openssl.log || fail "$(cat openssl.log)"
    printf '%s\n' "$3" subjectKeyIdentifier=hash >extensions
    if [ "$1" = ca ]; then
        set -- "$1" -signkey ca.key
    else
        echo authorityKeyIdentifier=keyid >>extensions
        set -- "$1" -CA ca.pem -CAkey ca.key -CAcreateserial
    fi
    file=$1
    shift
    openssl x509 -req -sha256 -days "$days" -in "$file.csr" "$@" -extfile extensions -out "$file.pem" 2>openssl.log ||
        fail "$(cat openssl.log)"
    rm -f "$file.csr" extensions openssl.log
}

certificate ca "authority" 'basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign'
certificate server "$host" "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=$name"

# Mosquitto wants whole paths.
whole=$(pwd | sed 's/[&|\\]/\\&/g')
sed -e "s|/etc/mosquitto/|$whole/|" -e "s|/var/lib/mosquitto/|$whole/|" "$here/mosquitto.conf" >mosquitto.conf
cp -- "$here/acl" acl
: >passwords
: >credentials.txt

for user in bridge viewer operator; do
    "$here/add-user.sh" . "$user" "$user" >/dev/null
done
echo "made $(pwd) for $host, good for $days days; passwords are in credentials.txt"
echo "start: mosquitto -c $folder/mosquitto.conf (in this folder, as an ordinary user)"
