package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

// TestSoak lets many clients use a few server connections at once, each
// keeping in mind what its session is like: a value, a statement, a role or a
// row that is not its own fails the test, as does an answer that never comes.
// Server connections break all the time. SHARDPROXY_TEST_SOAK is for how many
// seconds, SHARDPROXY_TEST_SEED varies it.
func TestSoak(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Options{})
	faults := faultproxy.Start(t, faultproxy.Options{Target: cluster.Primary().Addr()})
	f := start(t, fixtureOptions{size: 8, nodes: []string{faults.Addr()}})
	setup := mustDial(t, f.addr, "app")
	setup.do(t, "CREATE TABLE ledger (who int, n int); CREATE FUNCTION choose(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.chosen', $1, false); END $$")
	const clients = 24
	for i := range clients {
		setup.do(t, fmt.Sprintf("CREATE ROLE soak%d", i))
		setup.do(t, fmt.Sprintf("GRANT ALL ON ledger TO soak%d", i))
	}
	f.learn()
	end := time.Now().Add(time.Duration(environInt("SHARDPROXY_TEST_SOAK", 4)) * time.Second)
	var wg sync.WaitGroup
	var steps, lost atomic.Int64
	for i := range clients {
		c := &soaker{t: t, addr: f.addr, id: i, r: rand.New(rand.NewPCG(uint64(environInt("SHARDPROXY_TEST_SEED", 1)), uint64(i)))}
		wg.Go(func() {
			defer c.leave()
			for n := 0; (n < 10 || time.Now().Before(end)) && !t.Failed(); n++ {
				c.step()
				steps.Add(1)
			}
			lost.Add(int64(c.lost))
		})
	}
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
				faults.KillAll()
			}
		}
	})
	wg.Wait()
	close(stop)
	chaos.Wait()
	t.Logf("%d steps by %d clients, %d sessions lost with their server connections, %d pins, %d audits", steps.Load(), clients,
		lost.Load(), f.db.Totals().Pins, f.db.Totals().Audits)
}

// soaker is one client and what it knows of its session.
type soaker struct {
	t    testing.TB
	addr string
	id   int
	r    *rand.Rand
	c    *rawClient
	lost int
	n    int // makes values unlike

	value, chosen, path string
	role                bool
	statements          map[string]string // name to the text it selects
	temp                string
	rows, maybe         int // of the ledger: acknowledged; of unknown outcome
}

func (s *soaker) leave() {
	if s.c != nil {
		_ = s.c.Close()
		s.c = nil
	}
}

// renew logs in; everything of the session is new.
func (s *soaker) renew() bool {
	s.leave()
	c, err := dialRaw(s.addr, "postgres", "app")
	if err != nil {
		return false // its server connection was killed during the login
	}
	s.c, s.value, s.chosen, s.path, s.temp, s.role = c, "", "", "", "", false
	s.statements = map[string]string{}
	return true
}

// say sends the frames; ok is false when the session, or its transaction, was
// lost with the server connection, which is no fault.
func (s *soaker) say(n int, frames ...frame) (lines []string, ok bool) {
	lines = s.c.say(n, frames...)
	all := strings.Join(lines, " | ")
	switch {
	case strings.Contains(all, "i/o timeout"):
		s.t.Errorf("client %d: no answer to %v", s.id, frames)
		return lines, false
	case strings.Contains(all, "FATAL") || strings.Contains(all, "END "):
		s.lost++
		s.leave()
		return lines, false
	case soakLost.MatchString(all):
		if strings.HasSuffix(all, `Z "E"`) {
			s.c.say(1, fQuery("ROLLBACK"))
		}
		return lines, false
	}
	return lines, true
}

// soakLost matches what a client may be told of a server connection that was killed.
var soakLost = regexp.MustCompile(`E ERROR (08006|08007|57P01|08001)`)

// want sends one simple query, which must answer with the text.
func (s *soaker) want(sql, want string) bool {
	lines, ok := s.say(1, fQuery(sql))
	if ok && !contains(lines, want) {
		s.t.Errorf("client %d: %s: got %v, want %s", s.id, sql, lines, want)
	}
	return ok
}

func (s *soaker) unlike(what string) string {
	s.n++
	return fmt.Sprintf("%s-%d-%d", what, s.id, s.n)
}

// step does one random thing.
func (s *soaker) step() {
	if s.c == nil && !s.renew() {
		return
	}
	switch s.r.IntN(16) {
	case 0:
		v := s.unlike("value")
		if s.want("SET app.value = '"+v+"'", "SET") {
			s.value = v
		} else if s.c != nil {
			s.leave() // whether it was set nobody knows
		}
	case 1, 2:
		s.inTransaction()
	case 3, 4:
		s.check()
	case 5:
		s.prepare()
	case 6, 7:
		s.execute()
	case 8:
		if s.want(fmt.Sprintf("SET ROLE soak%d", s.id), "SET") {
			s.role = true
		} else {
			s.leave()
		}
	case 9:
		s.insert()
	case 10:
		s.temporary()
	case 11:
		v := s.unlike("chosen")
		if s.want("SELECT choose('"+v+"')", "SELECT 1") {
			s.chosen = v
		} else {
			s.leave()
		}
	case 12:
		if s.want("DISCARD ALL", "DISCARD ALL") {
			s.value, s.chosen, s.path, s.temp, s.role = "", "", "", "", false
			s.statements = map[string]string{}
		} else {
			s.leave()
		}
	case 13:
		// Gone in the middle of a transaction, with everything set.
		s.say(1, fQuery("BEGIN; SET app.value = 'left behind'; SET LOCAL search_path = nowhere; INSERT INTO ledger VALUES (-1, 1)"))
		s.leave()
	case 14:
		p := s.unlike("path")
		if s.want(`SET search_path = "`+p+`", public`, "SET") {
			s.path = p
		} else {
			s.leave()
		}
	case 15:
		s.want("SELECT count(*) FROM ledger WHERE who = -1", `\x010"`)
	}
}

// check asks for all that the session has set.
func (s *soaker) check() {
	who := "postgres"
	if s.role {
		who = fmt.Sprintf("soak%d", s.id)
	}
	sql := "SELECT concat_ws('/', '<', current_setting('app.value', true), current_setting('app.chosen', true), current_user, '>')"
	parts := []string{"<", s.value, s.chosen, who, ">"}
	lines, ok := s.say(1, fQuery(sql))
	if !ok {
		return
	}
	// A custom setting that was never set is NULL, or empty once it was.
	want := strings.ReplaceAll(strings.Join(parts, "/"), "//", "/")
	want = strings.ReplaceAll(want, "//", "/")
	got := strings.Join(lines, "|")
	for strings.Contains(got, "//") {
		got = strings.ReplaceAll(got, "//", "/")
	}
	if !strings.Contains(got, want) {
		s.t.Errorf("client %d: its session is %s, not %s", s.id, got, want)
	}
	path := "public"
	if s.path != "" {
		path = s.path
	}
	s.want("SHOW search_path", path)
}

func (s *soaker) inTransaction() {
	v := s.unlike("value")
	end := pick(s.r, "COMMIT", "ROLLBACK", "COMMIT; SELECT 1/0")
	lines, ok := s.say(5, fQuery("BEGIN"), fQuery("SET app.value = '"+v+"'"), fQuery("SELECT current_setting('app.value')"), fQuery("SELECT 1"), fQuery(end))
	switch {
	case !ok:
		s.leave() // whether it was committed nobody knows
	case !contains(lines, v):
		s.t.Errorf("client %d: in its transaction: %v", s.id, lines)
	case end != "ROLLBACK":
		s.value = v
	}
}

func (s *soaker) prepare() {
	name, v := fmt.Sprintf("p%d", s.r.IntN(4)), s.unlike("statement")
	if _, there := s.statements[name]; there {
		if s.want("DEALLOCATE "+name, "DEALLOCATE") {
			delete(s.statements, name)
		} else {
			s.leave()
		}
		return
	}
	sql := "SELECT '" + v + "'::text || $1::text"
	ok := false
	if s.r.IntN(2) == 0 {
		ok = s.want("PREPARE "+name+" AS "+sql, "PREPARE")
	} else {
		_, ok = s.say(1, fParse(name, sql), fSync())
	}
	if ok {
		s.statements[name] = v
	} else {
		s.leave()
	}
}

func (s *soaker) execute() {
	name := fmt.Sprintf("p%d", s.r.IntN(4))
	want := "26000"
	if v, there := s.statements[name]; there {
		want = v + "!"
	}
	frames := []frame{fBind("", name, "!"), fExecute("", 0), fSync()}
	if s.r.IntN(2) == 0 {
		frames = []frame{fQuery("EXECUTE " + name + "('!')")}
	}
	if lines, ok := s.say(1, frames...); ok && !contains(lines, want) {
		s.t.Errorf("client %d: statement %s gave %v, not %s", s.id, name, lines, want)
	}
}

func (s *soaker) insert() {
	lines, ok := s.say(1, fQuery(fmt.Sprintf("INSERT INTO public.ledger VALUES (%d, 1)", s.id)))
	switch all := strings.Join(lines, " "); {
	case ok:
		s.rows++
	case strings.Contains(all, "08007") || strings.Contains(all, "FATAL") || strings.Contains(all, "END "):
		s.maybe++
	}
	if s.c == nil {
		return
	}
	lines, ok = s.say(1, fQuery(fmt.Sprintf("SELECT 'rows ' || count(*) FROM public.ledger WHERE who = %d", s.id)))
	if !ok {
		return
	}
	var got int
	_, after, _ := strings.Cut(strings.Join(lines, " "), "rows ")
	if _, err := fmt.Sscanf(after, "%d", &got); err != nil || got < s.rows || got > s.rows+s.maybe {
		s.t.Errorf("client %d: %d rows, of %d acknowledged and %d of unknown outcome: %v", s.id, got, s.rows, s.maybe, lines)
	}
}

// temporary uses a temporary table, which ties the session to its server
// connection; only a few clients do, so that the others get one, too.
func (s *soaker) temporary() {
	switch {
	case s.id%6 != 0 || s.role:
		s.check()
	case s.temp == "":
		v := s.unlike("temp")
		if s.want("CREATE TEMP TABLE mine AS SELECT '"+v+"'::text AS v", "SELECT 1") {
			s.temp = v
		} else {
			s.leave()
		}
	case s.r.IntN(2) == 0:
		s.want("SELECT v FROM pg_temp.mine", s.temp)
	default:
		if s.want("DROP TABLE pg_temp.mine", "DROP TABLE") {
			s.temp = ""
		} else {
			s.leave()
		}
	}
}
