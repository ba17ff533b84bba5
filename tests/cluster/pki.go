package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

const issuer = "https://kubernetes.default.svc"

// runPKI makes files in a folder: what its further arguments say, or each line of its input.
//
//	ca                                     ca.crt, ca.key
//	accounts                               sa.pub, sa.key: sign tokens of ServiceAccounts
//	server NAME --names A,B                NAME.crt, NAME.key: names and addresses of a server
//	user NAME --user U --groups A,B        NAME.crt, NAME.key: a client
//	token NAME --account NS/N --uid UID    NAME.token: a ServiceAccount's, of any lifetime
func runPKI() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("the first argument is a folder")
	}
	dir, words := os.Args[1], os.Args[2:]
	if len(words) > 0 {
		return makePKI(dir, words)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 0 {
			if err := makePKI(dir, words); err != nil {
				return fmt.Errorf("%s: %w", lines.Text(), err)
			}
		}
	}
	return lines.Err()
}

func makePKI(dir string, words []string) error {
	kind, rest := words[0], words[1:]
	name := kind
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		name, rest = rest[0], rest[1:]
	}
	flags := flag.NewFlagSet("pki", flag.ContinueOnError)
	names := flags.String("names", "", "a server's names and addresses")
	user := flags.String("user", name, "a client's name")
	groups := flags.String("groups", "", "a client's groups")
	lifetime := flags.Duration("lifetime", 24*time.Hour, "for which it is good")
	account := flags.String("account", "", "a ServiceAccount as NAMESPACE/NAME")
	uid := flags.String("uid", "", "its UID")
	if err := flags.Parse(rest); err != nil {
		return err
	}
	base := filepath.Join(dir, name)
	now := time.Now()
	template := x509.Certificate{
		NotBefore: now.Add(-time.Minute),
		NotAfter:  now.Add(*lifetime),
		KeyUsage:  x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	switch kind {
	case "ca":
		key, err := newKey(filepath.Join(dir, "ca.key"), "")
		if err != nil {
			return err
		}
		authority, err := cert.NewSelfSignedCACert(cert.Config{CommonName: fmt.Sprintf("headgate %d", now.UnixNano())}, key)
		if err != nil {
			return err
		}
		return writeCertificate(filepath.Join(dir, "ca.crt"), authority.Raw)
	case "accounts":
		_, err := newKey(filepath.Join(dir, "sa.key"), filepath.Join(dir, "sa.pub"))
		return err
	case "server":
		template.Subject.CommonName = name
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, other := range split(*names) {
			if address := net.ParseIP(other); address != nil {
				template.IPAddresses = append(template.IPAddresses, address)
			} else {
				template.DNSNames = append(template.DNSNames, other)
			}
		}
		return issue(dir, base, &template)
	case "user":
		template.Subject = pkix.Name{CommonName: *user, Organization: split(*groups)}
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		return issue(dir, base, &template)
	case "token":
		return signToken(dir, base, *account, *uid, *lifetime)
	default:
		return fmt.Errorf("%q is none of ca, accounts, server, user, token", kind)
	}
}

func split(text string) []string {
	return strings.FieldsFunc(text, func(letter rune) bool { return letter == ',' })
}

// issue has the folder's CA sign a new key.
func issue(dir, base string, template *x509.Certificate) error {
	authorities, err := cert.CertsFromFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return err
	}
	signer, err := privateKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return err
	}
	key, err := newKey(base+".key", "")
	if err != nil {
		return err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, authorities[0], key.Public(), signer)
	if err != nil {
		return err
	}
	return writeCertificate(base+".crt", signed)
}

// The API server takes a token for so much longer than it says.
const leeway = time.Minute

// signToken makes a token as the API server's TokenRequest does, which refuses to make one for
// less than ten minutes. When its lifetime is over it is refused, leeway or not.
func signToken(dir, base, account, uid string, lifetime time.Duration) error {
	namespace, name, found := strings.Cut(account, "/")
	if !found || uid == "" {
		return fmt.Errorf("a token is for --account NAMESPACE/NAME with --uid UID")
	}
	key, err := privateKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return err
	}
	generator, err := serviceaccount.JWTTokenGenerator(issuer, key)
	if err != nil {
		return err
	}
	owner := core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}}
	claims, private, err := serviceaccount.Claims(owner, nil, nil, nil, int64((lifetime - leeway).Seconds()), 0, []string{issuer})
	if err != nil {
		return err
	}
	token, err := generator.GenerateToken(context.Background(), claims, private)
	if err != nil {
		return err
	}
	return os.WriteFile(base+".token", []byte(token), 0o600)
}

func newKey(private, public string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(private, text, 0o600); err != nil {
		return nil, err
	}
	if public == "" {
		return key, nil
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

func privateKey(file string) (any, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return keyutil.ParsePrivateKeyPEM(text)
}

func writeCertificate(file string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
