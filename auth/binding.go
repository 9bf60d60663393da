package auth

import (
	"crypto"
	_ "crypto/sha256" // the hashes of certificates' signatures must be linked in
	_ "crypto/sha512"
	"crypto/x509"
)

// endpointHash returns the channel binding tls-server-end-point of a server
// certificate: its hash under the hash function of its own signature, or
// SHA-256 where that is MD5 or SHA-1 (RFC 5929, section 4.1). It is nil where
// the RFC defines none, as for Ed25519: there SCRAM-SHA-256-PLUS must not be
// offered, for a client could not complete it.
func endpointHash(cert *x509.Certificate) []byte {
	if cert == nil || len(cert.Raw) == 0 {
		return nil
	}
	var h crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.DSAWithSHA256, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
		h = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = crypto.SHA512
	default:
		return nil
	}
	w := h.New()
	w.Write(cert.Raw)
	return w.Sum(nil)
}
