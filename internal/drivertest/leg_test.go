package drivertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/clientrun"
	"shardproxy/internal/pgcluster"
)

// directSuffix ends the name of a client's database that is reached directly.
const directSuffix = "_direct"

// leg is one of the two ways to a database.
type leg struct {
	name     string // "direct" or "proxy"
	port     int    // on localhost
	database string // as a client asks for it and as the servers call it
	caFile   string
	wrongCA  string
	nodes    []int // ports of all nodes, where the superuser needs no password
}

// legs returns both ways for a client.
func legs(client string) []leg {
	s := theStage
	l := leg{caFile: s.cluster.TLS().CAFile, wrongCA: s.wrongCA}
	for _, n := range s.cluster.Nodes() {
		l.nodes = append(l.nodes, n.Port())
	}
	direct, proxied := l, l
	direct.name, direct.port, direct.database = "direct", l.nodes[0], client+directSuffix
	proxied.name, proxied.port, proxied.database = "proxy", s.port, client
	return []leg{direct, proxied}
}

// environment tells a script where to connect to. libpq reads most of it by
// itself. Nothing of the caller's own PG variables gets through.
func (l leg) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") {
			env = append(env, e)
		}
	}
	return append(env,
		"PGHOST=localhost", "PGPORT="+strconv.Itoa(l.port), "PGDATABASE="+l.database,
		"PGUSER="+pgcluster.AppUser, "PGPASSWORD="+pgcluster.AppPassword,
		"PGSSLMODE=verify-full", "PGSSLROOTCERT="+l.caFile, "PGCHANNELBINDING=require", "PGCONNECT_TIMEOUT=20",
		"WRONG_CA="+l.wrongCA, "NODE_PORTS="+strings.Trim(fmt.Sprint(l.nodes), "[]"),
		"LC_ALL=C.UTF-8", "TZ=UTC",
	)
}

// dsn is how a Go driver connects; more is appended to it.
func (l leg) dsn(more string) string {
	return fmt.Sprintf("host=localhost port=%d dbname=%s user=%s password=%s sslmode=verify-full sslrootcert=%s connect_timeout=20 %s",
		l.port, l.database, pgcluster.AppUser, pgcluster.AppPassword, l.caFile, more)
}

// nodeDSN leads to the same database on one node, as the superuser.
func (l leg) nodeDSN(port int) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=%s sslmode=disable", port, l.database, pgcluster.Superuser)
}

// clientScript runs one client over a leg and returns what it printed: all of
// its sections, or those named, if any are and it knows how.
type clientScript func(l leg, only []string) (string, error)

// runScript runs a program with a leg's environment and returns what it
// printed. Its standard error comes with the error.
func runScript(l leg, more []string, program string, args ...string) (string, error) {
	return runScriptInput(l, more, "", program, args...)
}

// runScriptInput is runScript with a text as standard input.
func runScriptInput(l leg, more []string, input, program string, args ...string) (string, error) {
	return clientrun.Script{Program: program, Args: args, Env: append(l.environment(), more...), Input: input}.Run()
}

// compare runs one client's script over both legs at once and reports each
// section that differs.
func compare(t *testing.T, client string, script clientScript) {
	t.Helper()
	if err := clientrun.TouchSources(); err != nil {
		t.Fatal(err)
	}
	both := legs(client)
	transcripts, errs := make([]clientrun.Transcript, len(both)), make([]error, len(both))
	var wg sync.WaitGroup
	for i, l := range both {
		wg.Go(func() {
			var text string
			text, errs[i] = script(l, nil)
			transcripts[i] = clientrun.ReadTranscript(text)
		})
	}
	wg.Wait()
	want, got := transcripts[0], transcripts[1]
	if len(want) == 0 && errs[0] == nil {
		t.Error("the script printed nothing")
	}
	got = goOn(both[1], script, want, got)
	want.Judge(t, got)
	for i, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", both[i].name, err)
		}
	}
}

// goOn runs the sections that a script did not come to because one before them
// hung, so that one fault does not hide others.
func goOn(l leg, script clientScript, want, got clientrun.Transcript) clientrun.Transcript {
	for 0 < len(got) && len(got) < len(want) {
		var rest []string
		for _, s := range want[len(got):] {
			rest = append(rest, s.Name)
		}
		text, _ := script(l, rest) // the first run's error is reported
		more := clientrun.ReadTranscript(text)
		if len(more) == 0 || more[0].Name != rest[0] {
			break
		}
		got = append(got, more...)
	}
	return got
}

// writeAuthority writes the certificate of an authority that signed nothing.
func writeAuthority(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
