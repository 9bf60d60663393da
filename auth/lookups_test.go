package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shardproxy/config"
)

// fakeQuerier answers from a map and counts.
type fakeQuerier struct {
	mu      sync.Mutex
	records map[string]UserRecord // by database/user
	err     error
	block   chan struct{} // when not nil, calls wait for it or for their context
	calls   atomic.Int64
}

func (f *fakeQuerier) QueryUser(ctx context.Context, database, sql, user string) (UserRecord, bool, error) {
	f.calls.Add(1)
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return UserRecord{}, false, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rec, ok := f.records[database+"/"+user]
	return rec, ok, f.err
}

func (f *fakeQuerier) set(user, password string, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.records == nil {
		f.records = map[string]UserRecord{}
	}
	f.records["shop/"+user] = UserRecord{config.NewSecret(password), until}
}

func querySettings(users ...config.User) *config.Config {
	cfg := settings(config.MethodSCRAM, users...)
	cfg.Auth.Throttle.Delay = 0
	cfg.Auth.AuthQuery = &config.AuthQuery{
		Query: "SELECT", CacheTime: 10 * time.Second, CacheMissTime: 5 * time.Second, CacheSize: 3, Timeout: 2 * time.Second,
	}
	return cfg
}

func TestAuthQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQuerier{}
		verifier := HashPassword("secret")
		q.set("app", verifier, time.Time{})
		q.set("soon", verifier, time.Now().Add(5*time.Second))
		q.set("past", verifier, time.Now().Add(-time.Second))
		q.set("null", "", time.Time{})
		q.set("odd", "secret", time.Time{})
		q.set("md5", hashMD5("secret", "md5"), time.Time{})
		q.set("file", HashPassword("not this one"), time.Time{})
		a := mustNew(t, Options{Config: querySettings(plain("file", "secret")), Querier: q})
		for user, cause := range map[string]error{
			"app": nil, "soon": nil, "file": nil, "past": errExpired, "null": errNoPassword,
			"odd": errFormat, "md5": errNoVerifier, "ghost": errUnknown,
		} {
			id, err := login(t, a, client(user, "secret"), user)
			if cause != nil {
				wantFailed(t, err, user, cause)
			} else if err != nil || id.User != user || user != "file" && id.ServerPassword.Reveal() != "" {
				t.Errorf("%s: %+v, %v", user, id, err)
			}
			_, err = login(t, a, client(user, "wrong"), user)
			if cause == nil {
				cause = errWrongPassword
			}
			wantFailed(t, err, user, cause)
		}
		time.Sleep(5 * time.Second) // "soon" expires though its record may be cached
		_, err := login(t, a, client("soon", "secret"), "soon")
		wantFailed(t, err, "soon", errExpired)
	})
}

func TestAuthQueryMD5AndTrust(t *testing.T) {
	q := &fakeQuerier{}
	q.set("md5", hashMD5("secret", "md5"), time.Time{})
	q.set("gone", hashMD5("secret", "gone"), time.Unix(0, 0))
	cfg := querySettings()
	for _, method := range []config.Method{config.MethodMD5, config.MethodPassword} {
		cfg.Auth.Rules = []config.Rule{{Method: method}}
		a := mustNew(t, Options{Config: cfg, Querier: q})
		if _, err := login(t, a, client("md5", "secret"), "md5"); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		_, err := login(t, a, client("gone", "secret"), "gone")
		wantFailed(t, err, "gone", errExpired)
		_, err = login(t, a, client("gone", "wrong"), "gone")
		wantFailed(t, err, "gone", errExpired)
	}
	cfg.Auth.Rules = []config.Rule{{Method: config.MethodTrust}}
	a := mustNew(t, Options{Config: cfg, Querier: q})
	// As in PostgreSQL, VALID UNTIL is about passwords only.
	if _, err := login(t, a, client("gone", ""), "gone"); err != nil {
		t.Errorf("trust: %v", err)
	}
	if _, err := login(t, a, client("ghost", ""), "ghost"); err == nil || err.Code != "28000" {
		t.Errorf("trust for an unknown user: %v", err)
	}
}

func TestAuthQueryCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQuerier{}
		q.set("app", HashPassword("secret"), time.Time{})
		cfg := querySettings()
		a := mustNew(t, Options{Config: cfg, Querier: q})
		step := func(what, user, password string, ok bool, calls int64) {
			t.Helper()
			q.calls.Store(0)
			_, err := login(t, a, client(user, password), user)
			if (err == nil) != ok || q.calls.Load() != calls {
				t.Errorf("%s: %v with %d queries, want success %t with %d", what, err, q.calls.Load(), ok, calls)
			}
		}
		step("first", "app", "secret", true, 1)
		step("cached", "app", "secret", true, 0)
		time.Sleep(10*time.Second - 1)
		step("still cached", "app", "secret", true, 0)
		time.Sleep(time.Nanosecond)
		step("expired", "app", "secret", true, 1)

		q.set("app", HashPassword("changed"), time.Time{})
		step("password changed at once", "app", "changed", false, 0)
		time.Sleep(time.Second)
		step("doubted", "app", "changed", false, 0)
		step("asked anew", "app", "changed", true, 1)
		for range 5 { // a guesser makes one query a second, no more
			step("guess", "app", "wrong", false, 0)
		}

		step("unknown", "ghost", "x", false, 1)
		step("unknown cached", "ghost", "x", false, 0)
		time.Sleep(time.Second)
		step("unknown and doubted", "ghost", "x", false, 0)
		q.set("ghost", HashPassword("x"), time.Time{})
		step("known now", "ghost", "x", true, 1)
		for _, user := range []string{"a", "b", "c", "d"} {
			step("fills the cache", user, "x", false, 1)
		}
		if n := a.policy.Load().lookups.size(); n != 3 {
			t.Errorf("%d answers cached, the bound is 3", n)
		}
		step("was pushed out", "app", "changed", true, 1)
		if err := a.Update(cfg); err != nil {
			t.Fatal(err)
		}
		step("forgotten by a reload", "app", "changed", true, 1)

		none := querySettings()
		none.Auth.AuthQuery.CacheTime = 0
		if err := a.Update(none); err != nil {
			t.Fatal(err)
		}
		step("no cache", "app", "changed", true, 1)
		step("no cache", "app", "changed", true, 1)
	})
}

// TestAuthQueryAsksNobody: names that cannot be roles, databases that do not
// exist.
func TestAuthQueryAsksNobody(t *testing.T) {
	q := &fakeQuerier{}
	cfg := querySettings()
	a := mustNew(t, Options{Config: cfg, Querier: q})
	for _, user := range []string{strings.Repeat("x", 64), "a\xffb"} {
		_, err := login(t, a, client(user, "x"), user)
		wantFailed(t, err, user, errUnknown)
	}
	for _, database := range []string{"nosuch", "shardproxy"} {
		if _, err := a.Authenticate(context.Background(), client("app", "x"), "app", database); err == nil {
			t.Error("let in")
		}
	}
	if n := q.calls.Load(); n != 0 {
		t.Errorf("%d queries", n)
	}
	q.set("app", HashPassword("x"), time.Time{})
	cfg = querySettings()
	cfg.Auth.AuthQuery.Database = "shop"
	if err := a.Update(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(context.Background(), client("app", "x"), "app", "shardproxy"); err != nil {
		t.Errorf("with a fixed database: %v", err)
	}
}

// TestAuthQueryPerDatabase: the servers of one database do not speak for another's.
func TestAuthQueryPerDatabase(t *testing.T) {
	q := &fakeQuerier{}
	q.set("app", HashPassword("x"), time.Time{})
	q.records["other/app"] = UserRecord{Password: config.NewSecret(HashPassword("y"))}
	cfg := querySettings()
	cfg.Databases = append(cfg.Databases, config.Database{Name: "other"})
	a := mustNew(t, Options{Config: cfg, Querier: q})
	for _, c := range []struct {
		database, password string
		ok                 bool
	}{{"shop", "x", true}, {"other", "x", false}, {"other", "y", true}, {"shop", "y", false}} {
		if _, err := a.Authenticate(context.Background(), client("app", c.password), "app", c.database); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAuthQueryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQuerier{err: errors.New("server is down")}
		a := mustNew(t, Options{Config: querySettings(), Querier: q})
		_, err := login(t, a, client("app", "x"), "app")
		if err == nil || err.Code != "57P03" || !errors.Is(err, q.err) || strings.Contains(string(err.Append(nil)), "down") {
			t.Errorf("got %v", err)
		}
		q.err = nil
		q.set("app", HashPassword("x"), time.Time{})
		if _, err := login(t, a, client("app", "x"), "app"); err != nil {
			t.Errorf("a failure was cached: %v", err)
		}
		q.block = make(chan struct{})
		start := time.Now()
		_, err = login(t, a, client("slow", "x"), "slow")
		if err == nil || err.Code != "57P03" || time.Since(start) != 2*time.Second {
			t.Errorf("a slow server: %v after %v", err, time.Since(start))
		}
	})
}

// TestAuthQueryShared: a storm of one user asks once; when the one who asks
// gives up, another does it.
func TestAuthQueryShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQuerier{block: make(chan struct{})}
		q.set("app", HashPassword("x"), time.Time{})
		a := mustNew(t, Options{Config: querySettings(), Querier: q})
		first, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := a.Authenticate(first, client("app", "x"), "app", "shop"); err == nil {
				t.Error("the cancelled attempt got in")
			}
		})
		synctest.Wait()
		for range 20 {
			all.Go(func() {
				if _, err := login(t, a, client("app", "x"), "app"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := q.calls.Load(); n != 1 {
			t.Errorf("%d queries for one user", n)
		}
		cancel()
		synctest.Wait()
		if n := q.calls.Load(); n != 2 {
			t.Errorf("%d queries after the first had given up", n)
		}
		close(q.block)
		all.Wait()
		if n := q.calls.Load(); n != 2 {
			t.Errorf("%d queries in the end", n)
		}
	})
}
