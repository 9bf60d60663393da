package shiptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeb makes the package, unpacks it and runs what was in it.
func TestDeb(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("no dpkg-deb: install what Debian calls dpkg")
	}
	dir := t.TempDir()
	out := func(env string, args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), env)
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, b)
		}
		return string(b)
	}
	const version = "0.0.1~test"
	out("BINARY="+build(t, dir), "scripts/deb.sh", version)
	arch := strings.TrimSpace(out("", "dpkg", "--print-architecture"))
	deb, err := filepath.Abs(filepath.Join(root, "dist/shardproxy_"+version+"_"+arch+".deb"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(deb) })
	x := filepath.Join(dir, "x")
	out("", "dpkg-deb", "-x", deb, x)
	out("", "dpkg-deb", "-e", deb, filepath.Join(x, "control"))
	if got := out("", filepath.Join(x, "usr/bin/shardproxy"), "version"); !strings.HasPrefix(got, "shardproxy ") {
		t.Errorf("version says %q", got)
	}
	for path, want := range map[string]string{
		"usr/lib/systemd/system/shardproxy.service":           "ExecStart=/usr/bin/shardproxy run",
		"usr/lib/systemd/system/shardproxy@.service":          "ExecStart=/usr/bin/shardproxy run",
		"usr/share/bash-completion/completions/shardproxy":    "shardproxy",
		"usr/share/zsh/vendor-completions/_shardproxy":        "#compdef shardproxy",
		"usr/share/fish/vendor_completions.d/shardproxy.fish": "shardproxy",
		"usr/share/doc/shardproxy/copyright":                  "Apache-2.0",
		"control/conffiles":                                   "/etc/shardproxy/shardproxy.yaml",
		"control/control":                                     "Version: " + version,
		"control/postinst":                                    "adduser --system",
	} {
		b, err := os.ReadFile(filepath.Join(x, path))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	for _, page := range []string{"shardproxy.1.gz", "shardproxy-run.1.gz", "shardproxy-ready.1.gz"} {
		out("", "gzip", "-t", filepath.Join(x, "usr/share/man/man1", page))
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		out("", "sh", "-n", filepath.Join(x, "control", script))
	}
	// The example is right but for its password, which everybody chooses.
	conf := filepath.Join(x, "etc/shardproxy/shardproxy.yaml")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(conf); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the configuration's mode: %v, %v", info.Mode(), err)
	}
	password := filepath.Join(dir, "app.password")
	if err := os.WriteFile(password, []byte("chosen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(strings.Replace(string(text), "/etc/shardproxy/app.password", password, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out("", filepath.Join(x, "usr/bin/shardproxy"), "check", "--strict", "-c", conf)
	// Everything in the package belongs to root.
	for line := range strings.Lines(out("", "dpkg-deb", "-c", deb)) {
		if !strings.Contains(line, " root/root ") {
			t.Errorf("not root's: %s", line)
		}
	}
}
