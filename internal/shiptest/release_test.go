package shiptest

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestReleaseFile: the file is YAML, builds what the image builds, and what it runs is there.
func TestReleaseFile(t *testing.T) {
	var f struct {
		Builds []struct {
			Main         string
			Env, Ldflags []string
			Hooks        struct{ Post []struct{ Cmd string } }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, ".goreleaser.yaml")), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Builds) != 1 || f.Builds[0].Main != "./cmd/shardproxy" || f.Builds[0].Env[0] != "CGO_ENABLED=1" ||
		!strings.Contains(f.Builds[0].Ldflags[0], "-X main.version=") || len(f.Builds[0].Hooks.Post) != 2 {
		t.Fatalf("%+v", f)
	}
	for _, hook := range f.Builds[0].Hooks.Post {
		script, _, _ := strings.Cut(hook.Cmd, " ")
		read(t, script)
	}
}

// TestSocketUnit: the port is that of the service's example, and the name is the
// service's, by which systemd joins them.
func TestSocketUnit(t *testing.T) {
	unit := read(t, "deploy/systemd/shardproxy.socket")
	read(t, "deploy/systemd/shardproxy.service")
	for _, want := range []string{"[Socket]", "ListenStream=127.0.0.1:6432\n", "WantedBy=sockets.target"} {
		if !strings.Contains(unit, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestTemplateUnit: instances are the service itself, but for what they share.
func TestTemplateUnit(t *testing.T) {
	service, template := read(t, "deploy/systemd/shardproxy.service"), read(t, "deploy/systemd/shardproxy@.service")
	own := func(text, other string) (lines []string) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' && !strings.Contains(other, line+"\n") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	if lacks := own(service, template); !slices.Equal(lacks, []string{"Description=shardproxy, a PostgreSQL proxy"}) {
		t.Errorf("it lacks %q", lacks)
	}
	if has := own(template, service); !slices.Equal(has, []string{"Description=shardproxy, a PostgreSQL proxy (%i)", "RuntimeDirectoryPreserve=yes"}) {
		t.Errorf("of its own it has %q", has)
	}
}
