package proxy_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"shardproxy/internal/faultproxy"
)

// Two clients share one server connection; what one sets in a transaction that
// fails must neither stay on the connection nor be believed to be there.
func TestSettingsOfFailedTransactions(t *testing.T) {
	cases := []struct {
		name  string
		begin []string // one simple query each, from the client under test
		frame []frame  // then these
		keeps string   // what the client's own search_path is afterwards
	}{
		{"deferred constraint", []string{"BEGIN", "SET search_path = s2", "INSERT INTO public.d2 VALUES (1),(1)", "COMMIT"}, nil, "public"},
		{"failed transaction prepared", []string{"BEGIN", "SET search_path = s2", "SELECT 1/0", "PREPARE TRANSACTION 'x'"}, nil, "public"},
		{"commit before the error", nil, segment("BEGIN", "SET search_path = s2", "COMMIT", "SELECT 1/0"), "s2"},
		{"rollback before the error", nil, segment("BEGIN", "SET search_path = s2", "ROLLBACK", "SELECT 1/0"), "public"},
		{"set behind the commit", []string{"BEGIN"}, segment("COMMIT", "SET search_path = s2", "SELECT 1/0"), "public"},
		{"one text, commit before the error", nil, []frame{fQuery("BEGIN; SET search_path = s2; COMMIT; SELECT 1/0")}, "s2"},
		{"one text, set behind the commit", []string{"BEGIN"}, []frame{fQuery("COMMIT; SET search_path = s2; SELECT 1/0")}, "public"},
		{"one text, not committed", nil, []frame{fQuery("SET search_path = s2; SELECT 1/0")}, "public"},
		{"one text, committed", nil, []frame{fQuery("SET search_path = s2; SELECT 1")}, "s2"},
		{"set ahead of begin", nil, segment("SET search_path = s2", "BEGIN", "ROLLBACK"), "public"},
		{"savepoint in one text", []string{"BEGIN"}, []frame{fQuery("SAVEPOINT a; SET search_path = s2; ROLLBACK TO a; COMMIT")}, "public"},
		{"chained", []string{"BEGIN", "SET search_path = s2", "COMMIT AND CHAIN", "SET search_path = s3", "ROLLBACK"}, nil, "s2"},
		{"pipeline of syncs", nil, append(segment("SET search_path = s2"), segment("SELECT 1/0")...), "s2"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1})
			a, b, other := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
			a.do(t, "CREATE TABLE d2 (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
			b.do(t, "SET search_path = s2")
			other.do(t, "SET search_path = s3")
			a.do(t, "SELECT 1")
			for _, q := range c.begin {
				a.ask(q)
			}
			if c.frame != nil {
				n := 0
				for _, fr := range c.frame {
					if fr.kind == 'S' || fr.kind == 'Q' {
						n++
					}
				}
				a.say(n, c.frame...)
			}
			fresh := mustDial(t, f.addr, "app")
			fresh.mustAsk(t, "SHOW search_path", `public`)
			b.mustAsk(t, "SHOW search_path", `\x02s2`)
			a.mustAsk(t, "SHOW search_path", c.keeps)
			other.mustAsk(t, "SHOW search_path", `\x02s3`)
			a.mustAsk(t, "SHOW search_path", c.keeps)
		})
	}
}

// countingNodes counts the marks that sessions take.
type countingNodes struct {
	fixedNodes
	marks *atomic.Int64
}

func (n countingNodes) Mark() uint64 { return uint64(n.marks.Add(1)) }

// Each commit must have its mark, or a read behind it may miss it.
func TestEveryCommitIsMarked(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	var marks atomic.Int64
	f.db.Shards[0].Nodes = countingNodes{fixedNodes{0}, &marks}
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE w9 (i int)")
	before := marks.Load()
	a.mustSay(t, 2, "INSERT 0 1", append(segment("INSERT INTO w9 VALUES (1)"), segment("INSERT INTO w9 SELECT 2 FROM pg_sleep(0.3)")...)...)
	if got := marks.Load() - before; got != 2 {
		t.Errorf("%d marks for two pipelined commits", got)
	}
	before = marks.Load()
	a.do(t, "SELECT 1")
	a.do(t, "BEGIN")
	a.do(t, "SELECT count(*) FROM w9")
	a.do(t, "INSERT INTO w9 VALUES (3)")
	if got := marks.Load() - before; got != 0 {
		t.Errorf("%d marks before a commit", got)
	}
	a.do(t, "COMMIT")
	if got := marks.Load() - before; got != 1 {
		t.Errorf("%d marks after a commit", got)
	}
}

func TestUnknownCommitIsMarked(t *testing.T) {
	f, fp := behindFaults(t)
	var marks atomic.Int64
	f.db.Shards[0].Nodes = countingNodes{fixedNodes{0}, &marks}
	a := mustDial(t, f.addr, "app")
	a.do(t, "SELECT 1")
	fp.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "INSERT", Do: faultproxy.Kill()})
	before := marks.Load()
	a.mustAsk(t, "INSERT INTO lost VALUES (1)", "08007")
	if marks.Load() == before {
		t.Error("no mark after a commit of unknown outcome")
	}
}

func TestChainInALostTransaction(t *testing.T) {
	f, fp := behindFaults(t)
	a := mustDial(t, f.addr, "app")
	a.do(t, "BEGIN")
	fp.KillAll()
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	a.mustAsk(t, "SELECT 1", "E ERROR")
	a.mustAsk(t, "ROLLBACK AND CHAIN", "25P02")
	a.mustAsk(t, "INSERT INTO lost VALUES (5)", "25P02")
	a.mustAsk(t, "ROLLBACK", "ROLLBACK")
	a.mustAsk(t, "SELECT count(*) FROM lost", `\x010`)
}

// A login that is refused leaves nothing on the connection it was tried on.
func TestRefusedLoginLeavesNothing(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	b := mustDial(t, f.addr, "app")
	_, err := dialRaw(f.addr, "postgres", "app", "client_encoding", "LATIN1", "app.x", "\xe9", "work_mem", "bogus")
	if err == nil || !strings.Contains(err.Error(), "22023") {
		t.Fatalf("login: %v", err)
	}
	b.mustAsk(t, "SHOW client_encoding", "UTF8")
}

// A statement must not run under other settings than its session's, also when
// settings that were accepted before are refused now.
func TestSettingsRefusedLater(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE SCHEMA s17; CREATE TABLE s17.w (i int); CREATE TABLE public.w (i int)")
	b.do(t, "CREATE TEXT SEARCH CONFIGURATION public.tc (COPY=english)")
	a.do(t, "SET search_path = s17")
	a.do(t, "SET default_text_search_config = 'public.tc'")
	b.do(t, "SELECT 1")
	a.do(t, "SELECT 1")
	b.do(t, "DROP TEXT SEARCH CONFIGURATION public.tc")
	a.mustAsk(t, "INSERT INTO w VALUES (1)", "E ERROR 22023")
	b.mustAsk(t, "SELECT (SELECT count(*) FROM public.w) + (SELECT count(*) FROM s17.w)", `\x010`)
}

// The unnamed statement of one client is never another's, also when the Parse
// that should have brought it back was skipped.
func TestUnnamedStatementAfterAnError(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.say(1, fParse("", "SELECT 'mine of a'"), fParse("bad", "SELECT 1/0"), fSync())
	b.say(1, fParse("", "SELECT 'secret of b'"), fSync())
	a.mustSay(t, 1, "22012", fBind("", "bad"), fExecute("", 0), fBind("", ""), fExecute("", 0), fSync())
	if got := a.say(1, fBind("", ""), fExecute("", 0), fSync()); contains(got, "secret") || !contains(got, "mine of a") {
		t.Errorf("the client's own statement gave %v", got)
	}
}
