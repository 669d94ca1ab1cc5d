"""The names of the files in a folder of TLS certificates, those of nbdkit and QEMU. Light commands may import it."""

CA_CERTIFICATE = "ca-cert.pem"
REVOKED = "ca-crl.pem"
SERVER_CERTIFICATE = "server-cert.pem"
SERVER_KEY = "server-key.pem"
CLIENT_CERTIFICATE = "client-cert.pem"
CLIENT_KEY = "client-key.pem"
