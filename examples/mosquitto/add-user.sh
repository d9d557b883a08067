#!/bin/sh
# Gives a person or a program access: a block in `acl`, a random password, and, where `ca.key` is, a certificate.
#
# Usage: add-user.sh FOLDER ROLE NAME
#   FOLDER  where `acl` and `passwords` are
#   ROLE    viewer or operator
#   NAME    of a-z, 0-9, _ and -, beginning with a letter: it becomes a topic level
#
# The password is shown, and added to FOLDER/credentials.txt if that is there. Then let the broker read its files again:
# systemctl reload mosquitto, or kill -HUP. Give each program a user of its own.
set -eu
umask 077
LC_ALL=C
export LC_ALL

fail() {
    echo "add-user.sh: $1" >&2
    exit 1
}

[ $# -eq 3 ] || fail "usage: add-user.sh FOLDER viewer|operator NAME"
cd -- "$1"
role=$2
name=$3
case $name in
    [!a-z]* | *[!a-z0-9_-]* | '') fail "'$name': a name is of a-z, 0-9, _ and -, and begins with a letter" ;;
esac
case $role in
    viewer | operator) ;;
    bridge) [ "$name" = bridge ] || fail "there is one bridge, and its user is called bridge" ;;
    *) fail "'$role': a role is viewer or operator" ;;
esac
[ -f acl ] || fail "there is no file acl in $1"
[ -f passwords ] || fail "there is no file passwords in $1"
! grep -q "^$name:" passwords || fail "$name has a password already; nothing was changed"
grep -q "^user $role\$" acl || fail "acl has no block 'user $role' to take after"
[ "$role" = "$name" ] || ! grep -q "^user $name\$" acl || fail "$name has a block in acl already; nothing was changed"
[ ! -e "$name.key" ] || fail "$name.key exists already; nothing was changed"

password=$(openssl rand -hex 16)
# Hashed in a file of its own, so that the password is in no process list, and `passwords` is never half written.
printf '%s:%s\n' "$name" "$password" >passwords.new
mosquitto_passwd -U passwords.new
cat passwords.new >>passwords
rm -f passwords.new

if [ "$role" != "$name" ]; then
    # The block of the user that is called as the role is, with this name in its place.
    sed -n "/^user $role\$/,/^\$/p" acl | sed -e '/^$/d' -e "s|^user $role\$|user $name|" -e "s|/$role\$|/$name|" \
        -e "s|/$role/#|/$name/#|" >acl.new
    { echo && cat acl.new; } >>acl
    rm -f acl.new
fi

if [ -f ca.key ]; then
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$name.key" -out "$name.csr" \
        -subj "/O=cti-mqtt first try/CN=$name" 2>openssl.log || fail "$(cat openssl.log)"
    printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
        'extendedKeyUsage=clientAuth' subjectKeyIdentifier=hash authorityKeyIdentifier=keyid >extensions
    openssl x509 -req -sha256 -days 365 -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
        -extfile extensions -out "$name.pem" 2>openssl.log || fail "$(cat openssl.log)"
    rm -f "$name.csr" extensions openssl.log
fi

if [ -f credentials.txt ]; then
    echo "$name $password" >>credentials.txt
fi
echo "$name $password"
