package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"shardproxy/config"
	"shardproxy/internal/pgtest"
)

// guideBlock is a fenced block of a page.
type guideBlock struct {
	kind string // what stands behind the fence
	line int    // of the fence, from 1
	text string // with its last line break
}

// guideBlocks returns the fenced blocks of a page.
func guideBlocks(page string) (all []guideBlock) {
	var in *guideBlock
	n := 0
	for line := range strings.Lines(page) {
		n++
		switch kind, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```"); {
		case fence && in == nil:
			in = &guideBlock{kind: kind, line: n}
		case fence:
			all, in = append(all, *in), nil
		case in != nil:
			in.text += line
		}
	}
	return all
}

// guide runs what a page tells its readers to do, in a folder of its own, with
// the addresses of real servers in place of those of the page.
type guide struct {
	t         *testing.T
	page      string // file
	dir       string
	there     *strings.Replacer // the page's words -> the machine's
	back      *strings.Replacer
	listen    string
	admin     string
	proxy     *process // the one that runs
	special   map[string]func()
	lastPsql  string
	blockLine int
}

// newGuide makes the folder; addresses are the page's and the machine's in turn.
func newGuide(t *testing.T, page string, addresses ...string) *guide {
	t.Helper()
	g := &guide{t: t, page: page, dir: t.TempDir(), listen: freeAddr(t), admin: freeAddr(t), special: map[string]func(){}}
	addresses = append(addresses, "127.0.0.1:6432", g.listen, "127.0.0.1:9127", g.admin, "-h 127.0.0.1 -p 6432", "-h 127.0.0.1 -p "+portOf(t, g.listen))
	g.there = strings.NewReplacer(addresses...)
	slices.Reverse(addresses)
	g.back = strings.NewReplacer(addresses...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.file("bin/shardproxy", "#!/bin/sh\n"+asProgram+"=1 GORACE=atexit_sleep_ms=0 exec '"+self+"' \"$@\"\n", 0o700)
	return g
}

func (g *guide) file(name, text string, mode os.FileMode) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		g.t.Fatal(err)
	}
}

// failf fails at the place of the page.
func (g *guide) failf(format string, args ...any) {
	g.t.Helper()
	g.t.Fatalf("%s:%d: %s", filepath.Base(g.page), g.blockLine, fmt.Sprintf(format, args...))
}

// shell runs a script of bash, with options of it, and returns what it prints.
func (g *guide) shell(script, stdin string, options ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append(options, "-c", script)...)
	cmd.Dir, cmd.Stdin = g.dir, strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(g.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+g.dir, "PGPASSFILE="+filepath.Join(g.dir, ".pgpass"),
		"PGCONNECT_TIMEOUT=20", "LC_ALL=C.UTF-8", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run does all that the page says. With -update the answers of the page are written anew.
func (g *guide) run() {
	g.t.Helper()
	data, err := os.ReadFile(g.page)
	if err != nil {
		g.t.Fatal(err)
	}
	page, anew := string(data), string(data)
	for _, b := range guideBlocks(page) {
		g.blockLine = b.line
		switch b.kind {
		case "yaml":
			g.yaml(b.text)
		case "sh":
			g.sh(b.text)
		case "console":
			got := g.console(b.text)
			if got != b.text && *update {
				anew = strings.Replace(anew, "```console\n"+b.text, "```console\n"+got, 1)
			} else if got != b.text {
				g.t.Errorf("%s:%d: the page shows\n%s\nand it is\n%s", filepath.Base(g.page), b.line, b.text, got)
			}
		default:
			g.failf("a block of kind %q is tested by nobody", b.kind)
		}
	}
	if anew != page {
		if err := os.WriteFile(g.page, []byte(anew), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
}

// guideFile finds the files that a configuration names.
var guideFile = regexp.MustCompile(`\w: ([\w./-]+(?:/secrets/[\w-]+|\.(?:crt|key|password|secret)))`)

// named makes a file that a configuration names, if no command has made it.
func (g *guide) named(path string) {
	g.t.Helper()
	path = strings.TrimPrefix(path, g.dir+"/")
	if _, err := os.Stat(filepath.Join(g.dir, path)); err == nil {
		return
	}
	text := "a secret of 16 bytes and more\n"
	if ext := filepath.Ext(path); ext == ".crt" || ext == ".key" {
		b, err := os.ReadFile("../../config/testdata/files/" + filepath.Base(path))
		if err != nil {
			g.failf("%v", err)
		}
		text = string(b)
	}
	g.file(path, text, 0o600)
}

// yaml loads a configuration. One whose first line names a file becomes that.
func (g *guide) yaml(text string) {
	g.t.Helper()
	name, named := strings.CutPrefix(strings.SplitN(text, "\n", 2)[0], "# ")
	if !named || !strings.HasSuffix(name, ".yaml") {
		name = "fragment.yaml"
	}
	text = strings.ReplaceAll(g.there.Replace(text), "/run/secrets/", filepath.Join(g.dir, "secrets")+"/")
	g.file(name, text, 0o600)
	for _, m := range guideFile.FindAllStringSubmatch(text, -1) {
		g.named(m[1])
	}
	if _, err := config.Load(filepath.Join(g.dir, name), config.Options{}); err != nil {
		g.failf("%v", err)
	}
}

// sh runs a block whose output nobody looks at.
func (g *guide) sh(text string) {
	g.t.Helper()
	if f, special := g.special[text]; special {
		if f != nil {
			f()
		}
		return
	}
	if path, starts := strings.CutPrefix(text, "shardproxy run -c "); starts {
		g.start(strings.TrimSpace(path))
		return
	}
	if out, err := g.shell(g.there.Replace(text), "", "-euo", "pipefail"); err != nil {
		g.failf("%v\n%s\n%s", err, text, out)
	} else {
		g.t.Logf("%s:%d printed:\n%s", filepath.Base(g.page), g.blockLine, out)
	}
}

// start ends the proxy that runs, as Ctrl-C does, and starts it again.
func (g *guide) start(config string) {
	g.t.Helper()
	if g.proxy != nil {
		g.proxy.signal(syscall.SIGINT)
		g.proxy.endsWithin(30 * time.Second)
	}
	g.proxy = &process{t: g.t, cmd: command(g.t, "run", "-c", config), path: filepath.Join(g.dir, config), log: filepath.Join(g.dir, fmt.Sprintf("log.%d", g.blockLine)),
		ended: make(chan struct{}), addr: g.listen, admin: g.admin}
	g.proxy.cmd.Dir = g.dir
	g.proxy.start()
	g.proxy.logged("msg=listening")
	eventually(g.t, "the proxy is ready, and knows all nodes and the schema", func() bool {
		if g.proxy.get("/readyz") != 200 {
			return false
		}
		nodes := g.ask("dba", "shardproxy", "SHOW NODES WHERE health <> 'up'")
		return nodes == "" && strings.Contains(g.ask("app", "shop", "EXPLAIN (ROUTE) SELECT relname FROM pg_class"), "primary or replica")
	})
}

// ask asks the proxy as one of the guides' users, and returns the rows or the error as psql prints them.
func (g *guide) ask(user, database, sql string) string {
	g.t.Helper()
	out, err := g.shell(fmt.Sprintf("psql -XAt 'host=127.0.0.1 port=%s user=%s password=%s-secret dbname=%s' -c \"%s\"", portOf(g.t, g.listen), user, user, database, sql), "")
	if err != nil {
		return err.Error() + out
	}
	return out
}

// guidePrompt is what psql asks with, in whatever state it is.
var guidePrompt = regexp.MustCompile(`^[a-z]+[=!-][*!]?[>#] ?`)

// guideStep is one thing that is typed, and what is shown behind it.
type guideStep struct {
	typed []string // lines, with their prompts
	shown string
}

// steps parts a transcript.
func steps(text string) (all []guideStep) {
	last := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		typed := strings.HasPrefix(line, "$ ") || guidePrompt.MatchString(line)
		switch more := typed && last && strings.Contains(line, "->"); {
		case more:
			all[len(all)-1].typed = append(all[len(all)-1].typed, line)
		case typed:
			all = append(all, guideStep{typed: []string{line}})
		default:
			all[len(all)-1].shown += line + "\n"
		}
		last = typed
	}
	return all
}

// console types a transcript and returns it with the answers that came. Where the page
// shows a line of three dots, any lines may stand.
func (g *guide) console(text string) string {
	g.t.Helper()
	var b strings.Builder
	for rest := steps(text); len(rest) > 0; {
		n := 1
		var got []string
		if shell, is := strings.CutPrefix(rest[0].typed[0], "$ "); is {
			for n < len(rest) && !strings.HasPrefix(rest[n].typed[0], "$ ") {
				n++
			}
			if n > 1 {
				g.lastPsql = shell
				got = append([]string{""}, g.psql(rest[1:n])...)
			} else {
				out, _ := g.shell(g.there.Replace(shell), "") // what it prints tells
				got = []string{out}
			}
		} else {
			for n < len(rest) && !strings.HasPrefix(rest[n].typed[0], "$ ") {
				n++
			}
			got = g.psql(rest[:n])
		}
		for i, st := range rest[:n] {
			b.WriteString(strings.Join(st.typed, "\n") + "\n")
			answer := tidyAnswer(g.back.Replace(got[i]))
			if alikeBut(st.shown, answer) {
				answer = st.shown
			}
			b.WriteString(answer)
		}
		rest = rest[n:]
	}
	return b.String()
}

// psql sends statements over one connection and returns what is printed for each.
func (g *guide) psql(statements []guideStep) []string {
	g.t.Helper()
	const mark = "====behind the statement===="
	var in strings.Builder
	for _, st := range statements {
		for _, line := range st.typed {
			in.WriteString(g.there.Replace(guidePrompt.ReplaceAllString(line, "")) + "\n")
		}
		in.WriteString("\\echo " + mark + "\n")
	}
	out, err := g.shell(g.there.Replace(g.lastPsql)+" -X", in.String())
	parts := strings.Split(out, mark+"\n")
	if err != nil || len(parts) != len(statements)+1 || parts[len(statements)] != "" {
		g.failf("%s: %v: %s", g.lastPsql, err, out)
	}
	return parts[:len(statements)]
}

// tidyAnswer takes away blanks at the ends of lines.
func tidyAnswer(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// alikeBut compares an answer with one that may have lines of three dots.
func alikeBut(shown, got string) bool {
	if !slices.Contains(strings.Split(shown, "\n"), "...") {
		return shown == got
	}
	var re strings.Builder
	for line := range strings.Lines(shown) {
		if line == "...\n" {
			re.WriteString(`(?s:.*\n)?`)
		} else {
			re.WriteString(regexp.QuoteMeta(line))
		}
	}
	return regexp.MustCompile("^" + re.String() + "$").MatchString(got)
}

// emptyCluster is a primary with a replica that have nothing of the tests' own.
func emptyCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	cl.Primary().Exec("postgres", "DROP DATABASE app")
	cl.Primary().Exec("postgres", "DROP ROLE app")
	return cl
}

// restartAll restarts servers as their operators are told to: replicas first.
func restartAll(clusters ...*pgtest.Cluster) {
	for _, cl := range clusters {
		for _, n := range slices.Backward(cl.Nodes()) {
			n.Restart()
		}
	}
}

// TestGettingStarted does what docs/getting-started.md says.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	old, young := emptyCluster(t), emptyCluster(t)
	g := newGuide(t, "../../docs/getting-started.md",
		"10.0.0.1:5432", old.Primary().Addr(), "10.0.0.2:5432", old.Replicas()[0].Addr(),
		"10.0.1.1:5432", young.Primary().Addr(), "10.0.1.2:5432", young.Replicas()[0].Addr())
	maps.Copy(g.special, map[string]func(){
		// The package and "make build" have tests of their own.
		"sudo apt-get install ./shardproxy_0.1.0_amd64.deb postgresql-client\n": nil,
		"make build\nsudo install bin/shardproxy /usr/local/bin/\n":             nil,
		"sudo systemctl restart postgresql\n":                                   func() { restartAll(old, young) },
	})
	g.run()
}

// TestShardingGuide does what docs/sharding.md says, on two shards.
func TestShardingGuide(t *testing.T) {
	t.Parallel()
	var addresses []string
	for i := range 2 {
		cl := pgtest.Start(t, pgtest.Options{})
		for _, sql := range []string{
			"CREATE ROLE shardproxy LOGIN REPLICATION PASSWORD 'control-secret' IN ROLE pg_monitor, pg_signal_backend, app",
			"GRANT SET ON PARAMETER session_replication_role TO shardproxy",
			"CREATE DATABASE shop OWNER app",
			"GRANT CREATE ON DATABASE shop TO shardproxy",
		} {
			cl.Primary().Exec("postgres", sql)
		}
		addresses = append(addresses, fmt.Sprintf("10.0.%d.1:5432", i), cl.Primary().Addr())
	}
	g := newGuide(t, "../../docs/sharding.md", addresses...)
	g.run()
}

// TestGuidesFragments loads what the guides without servers would have people configure, and README.md.
func TestGuidesFragments(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"docs/security.md", "docs/comparison.md"} {
		t.Run(page, func(t *testing.T) { newGuide(t, "../../"+page).run() })
	}
	t.Run("README.md", func(t *testing.T) {
		g := newGuide(t, "../../README.md")
		page, err := os.ReadFile(g.page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range guideBlocks(string(page)) {
			if g.blockLine = b.line; b.kind != "yaml" {
				continue
			}
			if !strings.Contains(b.text, "users:") { // it goes on from the one before it
				b.text += "users: [{name: app, password: x}]\n"
			}
			g.yaml(b.text)
		}
	})
}

// TestGuideParts: what takes pages apart sees what it is there for.
func TestGuideParts(t *testing.T) {
	t.Parallel()
	blocks := guideBlocks("a\n```sh\nls\n```\nb\n```\nx\n```\n")
	if want := []guideBlock{{"sh", 2, "ls\n"}, {"", 6, "x\n"}}; !slices.Equal(blocks, want) {
		t.Errorf("%+v", blocks)
	}
	transcript := steps("$ psql x\nshop=> SELECT 1,\nshop->   2;\n one\n\nshop=*> COMMIT;\nCOMMIT\n$ ls\n")
	var typed []string
	for _, st := range transcript {
		typed = append(typed, strings.Join(st.typed, "/")+" gives "+st.shown)
	}
	if want := []string{"$ psql x gives ", "shop=> SELECT 1,/shop->   2; gives  one\n\n", "shop=*> COMMIT; gives COMMIT\n", "$ ls gives "}; !slices.Equal(typed, want) {
		t.Errorf("%q", typed)
	}
	for _, c := range []struct {
		shown, got string
		alike      bool
	}{
		{"a\nb\n", "a\nb\n", true}, {"a\n", "a\nb\n", false}, {"a\n...\nc\n", "a\nb\nb\nc\n", true}, {"a\n...\nc\n", "a\nc\n", true},
		{"a\n...\nc\n", "a\nb\n", false}, {"...\n", "", true}, {"a...\n", "ab\n", false}, {"a.c\n...\n", "abc\n", false},
	} {
		if alikeBut(c.shown, c.got) != c.alike {
			t.Errorf("%q and %q", c.shown, c.got)
		}
	}
}
