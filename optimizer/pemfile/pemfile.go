// Package pemfile reads certificates and keys that a configuration names. Its errors
// begin with the key that names the file.
package pemfile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Authorities reads the certificates of a file, whose key is given.
func Authorities(key, file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in PEM form in %s", key, file)
	}
	return pool, nil
}

// Pair reads a certificate and its private key, which cert_file and key_file of a section
// name.
func Pair(section, certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.cert_file: %w", section, err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.key_file: %w", section, err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(cert) {
		return tls.Certificate{}, fmt.Errorf("%s.cert_file: no certificate in PEM form in %s", section, certFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, fmt.Errorf("%s.key_file: %s for the certificate in %s: %w", section, keyFile, certFile, err)
	}
	return pair, nil
}
