package shiptest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// root is the repository's folder, seen from this package's.
const root = "../.."

// service is what the tests look at of a service of docker-compose.yml.
type service struct {
	Image       string
	Entrypoint  []string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	StopSignal  string `yaml:"stop_signal"`
	ReadOnly    bool   `yaml:"read_only"`
	Healthcheck *struct {
		Test    []string
		Disable bool
	}
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
}

type composeFile struct {
	Services map[string]service
	Volumes  map[string]any
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func compose(t testing.TB) composeFile {
	t.Helper()
	var f composeFile
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.yml")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestComposeFile checks what an engine would find only when it starts: what is
// waited for can be waited for, what is mounted is there, every password is asked for.
func TestComposeFile(t *testing.T) {
	f := compose(t)
	for _, want := range []string{"s0-primary", "s0-replica", "s1-primary", "s1-replica", "init", "proxy-1", "proxy-2", "prometheus", "grafana"} {
		if _, ok := f.Services[want]; !ok {
			t.Errorf("no service %s", want)
		}
	}
	for name, s := range f.Services {
		for on, d := range s.DependsOn {
			other, ok := f.Services[on]
			switch {
			case !ok:
				t.Errorf("%s waits for %s, which is none", name, on)
			case d.Condition == "service_healthy" && (other.Healthcheck == nil || other.Healthcheck.Disable):
				t.Errorf("%s waits for the health of %s, which has no check", name, on)
			case d.Condition != "service_healthy" && d.Condition != "service_completed_successfully":
				t.Errorf("%s waits for %s by %q", name, on, d.Condition)
			}
		}
		if len(s.DependsOn) == 0 && !strings.HasSuffix(name, "-primary") {
			t.Errorf("%s waits for nothing", name)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s to everybody", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, declared := f.Volumes[from]; !strings.HasPrefix(from, "./") && !declared {
				t.Errorf("%s: volume %s is not declared", name, from)
			}
			// The folders of rules and dashboards may be empty; what is of
			// this file's own must be there.
			if strings.HasPrefix(from, "./deploy/compose/") {
				read(t, strings.TrimPrefix(from, "./")+map[bool]string{true: "/datasources/prometheus.yml"}[strings.HasSuffix(from, "/provisioning")])
			}
		}
		if image, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" || strings.Contains(image, ".") {
			t.Errorf("%s: image %q", name, s.Image)
		}
	}
	var asked []string
	for _, m := range regexp.MustCompile(`\$\{(\w+):\?`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1) {
		asked = append(asked, m[1])
	}
	slices.Sort(asked)
	var offered []string
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=$`).FindAllStringSubmatch(read(t, "deploy/compose/env.example"), -1) {
		offered = append(offered, m[1])
	}
	slices.Sort(offered)
	if asked = slices.Compact(asked); !slices.Equal(asked, offered) {
		t.Errorf("docker-compose.yml asks for %q, env.example offers %q", asked, offered)
	}
}

// TestImage holds the image's description to what the program needs.
func TestImage(t *testing.T) {
	text := read(t, "Dockerfile")
	for _, want := range []string{
		`(?m)^FROM golang:[\d.]+-bookworm AS build$`, `(?m)^FROM debian:bookworm-slim$`, `CGO_ENABLED=1`,
		`(?m)^USER [1-9]\d*:[1-9]\d*$`, `(?m)^STOPSIGNAL SIGINT$`, `(?m)^ENTRYPOINT \["shardproxy"\]$`, `"shardproxy", "ready"`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the Dockerfile has no %s", want)
		}
	}
	goMod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if goMod == nil || !strings.Contains(text, "golang:"+goMod[1]+"-") {
		t.Errorf("the image is not built with the Go of go.mod: %q", goMod)
	}
	for name, s := range compose(t).Services {
		if strings.HasPrefix(name, "proxy-") && (s.StopSignal != "SIGINT" || !s.ReadOnly) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
