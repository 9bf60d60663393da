package proxy_test

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
)

// Clients of newer protocols, and with options that nobody knows, are told what
// there is, log in, and are served.
func TestNegotiation(t *testing.T) {
	f := start(t, fixtureOptions{})
	for _, c := range []struct {
		name    string
		version uint32
		options []string
		minor   uint32
		refused string // the options that the answer names
		cancel  int    // bytes of the cancel key
		tells   bool
	}{
		{"3.0", 3 << 16, nil, 0, "", 4, false},
		{"3.2", 3<<16 | 2, nil, 2, "", 32, false},
		{"3.9", 3<<16 | 9, nil, 2, "", 32, true},
		{"an option", 3 << 16, []string{"_pq_.strange"}, 0, "_pq_.strange", 4, true},
		{"3.9999 and two options", 3<<16 | 9999, []string{"_pq_.a", "_pq_.b"}, 2, "_pq_.a _pq_.b", 32, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			body := binary.BigEndian.AppendUint32(nil, c.version)
			body = append(body, "user\x00app\x00database\x00app\x00"...)
			for _, o := range c.options {
				body = append(body, o+"\x00on\x00"...)
			}
			body = append(body, 0)
			if _, err := nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
				t.Fatal(err)
			}
			raw := newRaw(nc)
			told := false
			for {
				kind, body, err := raw.receive(rawTimeout)
				if err != nil {
					t.Fatal(err)
				}
				switch kind {
				case 'v':
					told = true
					minor, count := binary.BigEndian.Uint32(body)&0xffff, binary.BigEndian.Uint32(body[4:])
					names := strings.Join(strings.FieldsFunc(string(body[8:]), func(r rune) bool { return r == 0 }), " ")
					if minor != c.minor || int(count) != len(c.options) || names != c.refused {
						t.Errorf("told of minor %d and %d options: %s", minor, count, names)
					}
				case 'K':
					if len(body)-4 != c.cancel {
						t.Errorf("a cancel key of %d bytes", len(body)-4)
					}
				case 'E':
					t.Fatalf("refused: %q", body)
				}
				if kind == 'Z' {
					break
				}
			}
			if told != c.tells {
				t.Errorf("told: %v", told)
			}
			raw.mustSay(t, 1, "SELECT 1", fQuery("SELECT 'served'"))
		})
	}
}
