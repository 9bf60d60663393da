package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shardproxy/config"
)

var rewriteImports = flag.Bool("rewrite-imports", false, "write testdata/pgbouncer/*.yaml anew")

// TestImportPgBouncer compares what is made of PgBouncer's configurations with what is kept of it; and each is one that the proxy takes.
func TestImportPgBouncer(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"pgbouncer": 1, "hba": 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "pgbouncer", name)
			out := filepath.Join(t.TempDir(), "shardproxy.yaml")
			o := call(t, "", "import-pgbouncer", path+".ini", "-o", out)
			if o.code != code {
				t.Errorf("%+v", o)
			}
			made, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", st.Mode(), err)
			}
			if *rewriteImports {
				if err := os.WriteFile(path+".yaml", made, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path + ".yaml")
			if err != nil || string(made) != string(want) {
				t.Errorf("made\n%s\nwant\n%s%v", made, want, err)
			}
			for _, said := range strings.Split(strings.TrimSpace(o.err), "\n") {
				if !strings.Contains(string(made), "# NOT CARRIED OVER: "+said) {
					t.Errorf("%q is not in the file", said)
				}
			}
			if _, err := config.Load(out, config.Options{LookupEnv: func(string) (string, bool) { return "", false }}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestImportPgBouncerBad has files that cannot be read.
func TestImportPgBouncerBad(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[databases]\nshop host":          "line 2: \"shop host\" is neither a section nor a setting",
		"[databases]\nshop = host":        "\"host\" is not keyword=value",
		"[databases]\nshop = password='x": "has no closing quote",
		"shop = 1":                        "before the first section",
		"[pgbouncer]\nlisten_addr = *":    "no database is named",
		"%include self.ini":               "too deep",
		"[databases]\na = host=b\n[pgbouncer]\nauth_file = nowhere": "nowhere",
	} {
		path := filepath.Join(t.TempDir(), "self.ini")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := call(t, "", "import-pgbouncer", path); o.code != exitProblems || !strings.Contains(o.err, want) || o.out != "" {
			t.Errorf("%q: %+v, want %s", text, o, want)
		}
	}
}

// TestHBARule reads lines of pg_hba.conf.
func TestHBARule(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"local all all trust":                   `{transport: "unix", method: "trust"}`,
		"host a,b c 10.1.2.3 255.255.0.0 md5":   `{transport: "tcp", databases: ["a", "b"], users: ["c"], addresses: "10.1.2.3/16", method: "md5"}`,
		"hostnossl all all ::1/128 password":    `{transport: "tcp", tls: "none", addresses: "::1/128", method: "password"}`,
		"host all all 10.1.2.3 255.0.255.0 md5": `the mask "255.0.255.0" has gaps`,
		"host all all 10.1.2.3 md5":             `the address "10.1.2.3" has no mask`,
		`host all "all" all md5`:                `who is called "all" cannot be told from everybody here`,
		"host all +staff all md5":               `"+staff" is not known here`,
		"host all all all ldap ldapserver=x":    `the method "ldap" is not known here`,
		"host all all all cert map=x":           `options of a method (map, and the like) are not known here`,
		"host all all somewhere.example md5":    `the address "somewhere.example" is not known here`,
		"gss all all all md5":                   `"gss" is no kind of connection`,
		"local all all":                         `it has too few fields`,
	} {
		rule, why := hbaRule(strings.Fields(line))
		got := why
		if why == "" {
			got = rule.flow()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
