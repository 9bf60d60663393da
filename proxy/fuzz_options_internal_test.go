package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"shardproxy/query"
	"shardproxy/wire"
)

// optionSeeds are values of the options parameter.
var optionSeeds = []string{
	"-c geqo=off -c statement_timeout=5min", "-csearch_path=app,public", "--search_path=app --work-mem=8MB", `-c search_path=a\ b\\c`,
	"-c application_name=", "-c", "-c x", "--", "-c =1", "--=1", "-Z", "geqo=off", " \t\n\v\f\r", `\`, `-c a.b=\`, "-c role=app", "-c  DateStyle=German",
	"-c session_authorization=app --role=none", "-c TimeZone='Europe/Berlin'", "-c shardproxy.route=replica", "-c shardproxy.x=1", "-c a.b=ä",
}

// argsOf splits options as PostgreSQL's manual says: at white space, which a
// backslash makes a part of an argument, as it does itself.
func argsOf(v string) (args []string) {
	const space = " \t\n\v\f\r"
	for v = strings.TrimLeft(v, space); v != ""; v = strings.TrimLeft(v, space) {
		var arg strings.Builder
		for v != "" && !strings.ContainsRune(space, rune(v[0])) {
			if v[0] == '\\' {
				if v = v[1:]; v == "" {
					break
				}
			}
			arg.WriteByte(v[0])
			v = v[1:]
		}
		args = append(args, arg.String())
	}
	return args
}

// FuzzOptions: options become settings with names, or are refused.
func FuzzOptions(f *testing.F) {
	for _, s := range optionSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if got, want := splitOptions(v), argsOf(v); !slices.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", v, got, want)
		}
		items, err := optionSettings(v)
		if err != nil {
			mustRefuse(t, err)
		}
		for _, it := range items {
			if it.Name == "" || strings.ContainsAny(it.Name, "-=") || !it.Literal {
				t.Errorf("%q: %+v", v, it)
			}
		}
	})
}

func mustRefuse(t *testing.T, err error) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || !e.IsFatal() || len(e.Code) != 5 {
		t.Errorf("refused with %#v", err)
	}
}

// packetOf is a first packet of protocol 3.0.
func packetOf(body string) []byte {
	p := append([]byte{0, 0, 0, 0, 0, 3, 0, 0}, body...)
	binary.BigEndian.PutUint32(p, uint32(len(p)))
	return p
}

// FuzzStartupSettings reads any first packet. What becomes of its parameters are
// commands that set just those, whatever their names and values hold.
func FuzzStartupSettings(f *testing.F) {
	for _, s := range []string{
		// psql, pgjdbc, Npgsql, psycopg with PGOPTIONS, and stranger ones.
		"user\x00app\x00database\x00shop\x00application_name\x00psql\x00client_encoding\x00UTF8\x00\x00",
		"user\x00app\x00database\x00shop\x00client_encoding\x00UTF8\x00DateStyle\x00ISO\x00TimeZone\x00Europe/Berlin\x00extra_float_digits\x002\x00\x00",
		"user\x00app\x00client_encoding\x00UTF8\x00database\x00shop\x00search_path\x00app, \"$user\"\x00\x00",
		"user\x00app\x00database\x00shop\x00options\x00-c geqo=off -c statement_timeout=5min\x00application_name\x00it's\x00\x00",
		"user\x00app\x00_pq_.x\x00y\x00replication\x00off\x00role\x00other\x00work_mem\x001MB\x00work_mem\x002MB\x00\x00",
		"user\x00app\x00a'b\\\x00x'; DROP TABLE t; --\x00\x00", "user\x00app\x00a.b\x00gr\xf6\xdfe\x00client_encoding\x00LATIN1\x00\x00", "\x00",
	} {
		f.Add(packetOf(s))
	}
	for _, s := range optionSeeds {
		f.Add(packetOf("user\x00app\x00options\x00" + s + "\x00\x00"))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		start, err := wire.ReadStartup(bytes.NewReader(p), 10000)
		if err != nil || start.Kind != wire.StartupSession {
			return
		}
		st, err := baseSettings(start)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		sql := string(st.AppendChange(nil, nil))
		var want []string
		coded := 0
		for _, it := range st.All() {
			if it.Name == "" || it.Name != strings.ToLower(it.Name) || !it.Literal {
				t.Errorf("%+v", it)
			}
			if it.Encoding != "" {
				coded++ // its value travels in hexadecimal digits
				continue
			}
			want = append(want, it.Name+"="+it.Text)
		}
		if !utf8.ValidString(sql) {
			return // the grammar reads no other
		}
		read := query.Analyze(sql, query.Options{})
		if read.Opaque {
			t.Fatalf("%q is not understood", sql)
		}
		var got []string
		for _, c := range read.Commands {
			if c.Kind == query.KindReset {
				continue // of the role, ahead of those that set it
			}
			if c.Kind == query.KindSelect && len(c.Settings) == 0 {
				coded--
				continue
			}
			if c.Kind != query.KindSelect || len(c.Settings) != 1 {
				t.Fatalf("%q does other things than to set", sql)
			}
			got = append(got, c.Settings[0].Name+"="+c.Settings[0].Flat)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) || coded != 0 {
			t.Errorf("%q sets %q, want %q", sql, got, want)
		}
	})
}
