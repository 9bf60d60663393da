package auth

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shardproxy/config"
	"shardproxy/wire"
)

func TestMethods(t *testing.T) {
	users := []config.User{
		plain("plain", "secret"),
		verified("scram", HashPassword("secret")),
		verified("md5", hashMD5("secret", "md5")),
		{Name: "nopw"},
	}
	for _, c := range []struct {
		method config.Method
		user   string
		shape  string // codes of the messages as letters: A ok, D cleartext, F md5, KLM SASL
		fails  error  // with the right password, too
	}{
		{config.MethodSCRAM, "plain", "KLMA", nil},
		{config.MethodSCRAM, "scram", "KLMA", nil},
		{config.MethodSCRAM, "md5", "KL", errNoVerifier},
		{config.MethodSCRAM, "nopw", "KL", errNoPassword},
		{config.MethodSCRAM, "nobody", "KL", errUnknown},
		{config.MethodMD5, "plain", "FA", nil},
		{config.MethodMD5, "scram", "KLMA", nil},
		{config.MethodMD5, "md5", "FA", nil},
		{config.MethodMD5, "nopw", "F", errNoPassword},
		{config.MethodMD5, "nobody", "F", errUnknown},
		{config.MethodPassword, "plain", "DA", nil},
		{config.MethodPassword, "scram", "DA", nil},
		{config.MethodPassword, "md5", "DA", nil},
		{config.MethodPassword, "nopw", "D", errNoPassword},
		{config.MethodPassword, "nobody", "D", errUnknown},
		{config.MethodTrust, "nopw", "A", nil},
	} {
		t.Run(string(c.method)+"/"+c.user, func(t *testing.T) {
			a := mustNew(t, Options{Config: settings(c.method, users...)})
			right := client(c.user, "secret")
			id, err := login(t, a, right, c.user)
			if c.fails != nil {
				wantFailed(t, err, c.user, c.fails)
			} else if err != nil || id.User != c.user || id.Method != c.method {
				t.Fatalf("right password: %+v, %v", id, err)
			}
			if got := strings.Join(right.shape, ""); got != c.shape {
				t.Errorf("the exchange was %s, want %s", got, c.shape)
			}
			if c.method == config.MethodTrust {
				return
			}
			wrong := client(c.user, "wrong")
			_, err = login(t, a, wrong, c.user)
			cause := c.fails
			if cause == nil {
				cause = errWrongPassword
			}
			wantFailed(t, err, c.user, cause)
			if got := strings.Join(wrong.shape, ""); !strings.HasPrefix(c.shape, got) {
				t.Errorf("with a wrong password the exchange was %s", got)
			}
		})
	}
}

func TestMockSecretPasswordDoesNotOpen(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodSCRAM), Secret: config.NewSecret("known to us")})
	password := a.mocks.salts.password("nobody")
	_, err := login(t, a, client("nobody", password), "nobody")
	wantFailed(t, err, "nobody", errUnknown)
}

// challenge returns the salt part of the server-first-message for a user.
func challenge(t *testing.T, a *Authenticator, user string) string {
	t.Helper()
	c := client(user, "x")
	_, _ = login(t, a, c, user)
	if c.code != authSASLContinue {
		t.Fatalf("no challenge for %s: %v", user, c.shape)
	}
	_, rest, _ := strings.Cut(string(c.last), ",")
	return rest
}

// TestUnknownUserLooksKnown: the same salt each time, its own for each name,
// unmoved by a reload and by the name becoming known, the same on each proxy
// with the same secret.
func TestUnknownUserLooksKnown(t *testing.T) {
	o := Options{Config: settings(config.MethodSCRAM, plain("known", "secret")), Secret: config.NewSecret("s")}
	o.Config.Auth.Throttle.Delay = 0
	a := mustNew(t, o)
	first := challenge(t, a, "ghost")
	if again := challenge(t, a, "ghost"); again != first {
		t.Errorf("the salt changed from %q to %q", first, again)
	}
	if other := challenge(t, a, "ghost2"); other == first {
		t.Error("two names share a salt")
	}
	if known := challenge(t, a, "known"); len(known) != len(first) || known[len(known)-7:] != first[len(first)-7:] {
		t.Errorf("known %q looks different from unknown %q", known, first)
	}
	next := settings(config.MethodSCRAM, plain("known", "secret"), plain("ghost", "boo"))
	if err := a.Update(next); err != nil {
		t.Fatal(err)
	}
	if now := challenge(t, a, "ghost"); now != first {
		t.Errorf("the salt tells that the name became known: %q, was %q", now, first)
	}
	if other := challenge(t, mustNew(t, o), "ghost"); other != first {
		t.Errorf("another proxy shows %q, not %q", other, first)
	}
	o.Secret = config.Secret{}
	if other := challenge(t, mustNew(t, o), "ghost"); other == first {
		t.Error("without a secret the salt can be predicted")
	}
}

func TestMockMD5FollowsTheFile(t *testing.T) {
	for want, users := range map[string][]config.User{
		"F": {plain("a", "x"), verified("b", hashMD5("x", "b")), verified("c", HashPassword("x"))},
		"K": {verified("a", HashPassword("x")), {Name: "b"}},
	} {
		a := mustNew(t, Options{Config: settings(config.MethodMD5, users...)})
		c := client("ghost", "x")
		_, _ = login(t, a, c, "ghost")
		if c.shape[0] != want {
			t.Errorf("an unknown user gets %v, want %s", c.shape, want)
		}
	}
}

func TestDerivedKeysAreKept(t *testing.T) {
	cfg := settings(config.MethodSCRAM, plain("app", "secret"), plain("b", "x"))
	a := mustNew(t, Options{Config: cfg})
	if _, err := login(t, a, client("app", "secret"), "app"); err != nil {
		t.Fatal(err)
	}
	keys := a.policy.Load().users["app"].derived.Load()
	if keys == nil {
		t.Fatal("keys were not kept")
	}
	if err := a.Update(settings(config.MethodSCRAM, plain("app", "secret"))); err != nil {
		t.Fatal(err)
	}
	if a.policy.Load().users["app"].derived.Load() != keys {
		t.Error("the reload forgot the keys of an unchanged user")
	}
	if err := a.Update(settings(config.MethodSCRAM, plain("app", "changed"))); err != nil {
		t.Fatal(err)
	}
	_, err := login(t, a, client("app", "secret"), "app")
	wantFailed(t, err, "app", errWrongPassword)
	if _, err := login(t, a, client("app", "changed"), "app"); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateAllOrNothing(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))})
	bad := settings(config.MethodTrust, plain("app", "x"), plain("app", "y"), verified("v", "nonsense"),
		config.User{Name: "two", Password: config.NewSecret("x"), Verifier: config.NewSecret("md5" + strings.Repeat("0", 32))}, config.User{})
	bad.Auth.AuthQuery = &config.AuthQuery{Query: "SELECT"}
	err := a.Update(bad)
	for _, part := range []string{`"app" is listed twice`, `verifier of user "v"`, `"two" has both`, "no name", "auth_query"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not among the problems: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "nonsense") {
		t.Errorf("the error quotes a secret: %v", err)
	}
	if _, err := login(t, a, client("app", "secret"), "app"); err != nil {
		t.Errorf("the old settings do not hold any more: %v", err)
	}
	if _, err := New(Options{Config: bad}); err == nil {
		t.Error("New took bad settings")
	}
}

func TestIdentity(t *testing.T) {
	cfg := settings(config.MethodPassword,
		plain("plain", "secret"),
		verified("scram", HashPassword("secret")),
		config.User{Name: "mapped", Password: config.NewSecret("secret"), ServerUser: "other", ServerPassword: config.NewSecret("theirs")},
		config.User{Name: "renamed", Password: config.NewSecret("secret"), ServerUser: "other"},
		config.User{Name: "own", Verifier: config.NewSecret(HashPassword("secret")), ServerPassword: config.NewSecret("srv")},
	)
	cfg.Databases = []config.Database{{Name: "shop"}, {Name: "named", Server: config.Server{User: "svc", Password: config.NewSecret("svcpw")}}}
	cfg.Admin.AdminUsers, cfg.Admin.MonitorUsers = []string{"plain"}, []string{"scram"}
	scramCfg := *cfg
	scramCfg.Auth.Rules = []config.Rule{{Method: config.MethodSCRAM}}
	for _, c := range []struct {
		cfg                *config.Config
		user, database     string
		serverUser, secret string
		admin, monitor     bool
	}{
		{cfg, "plain", "shop", "plain", "secret", true, true},
		{cfg, "scram", "shop", "scram", "secret", false, true}, // the client has sent it
		{&scramCfg, "scram", "shop", "scram", "", false, true},
		{&scramCfg, "scram", "named", "svc", "svcpw", false, true},
		{cfg, "mapped", "shop", "other", "theirs", false, false},
		{cfg, "mapped", "named", "other", "theirs", false, false},
		{cfg, "renamed", "shop", "other", "", false, false}, // the client's password is not the other's
		{&scramCfg, "own", "shop", "own", "srv", false, false},
		{cfg, "own", "named", "svc", "svcpw", false, false},
		{cfg, "plain", "nosuch", "plain", "secret", true, true},
	} {
		a := mustNew(t, Options{Config: c.cfg})
		id, err := a.Authenticate(context.Background(), client(c.user, "secret"), c.user, c.database)
		if err != nil {
			t.Errorf("%s@%s: %v", c.user, c.database, err)
			continue
		}
		if id.ServerUser != c.serverUser || id.ServerPassword.Reveal() != c.secret || id.Admin != c.admin || id.Monitor != c.monitor {
			t.Errorf("%s@%s is %s with %q, admin %t monitor %t", c.user, c.database, id.ServerUser, id.ServerPassword.Reveal(), id.Admin, id.Monitor)
		}
	}
}

func TestContextEnds(t *testing.T) {
	cfg := settings(config.MethodSCRAM, plain("app", "secret"))
	cfg.Auth.MaxDerivations = 1
	a := mustNew(t, Options{Config: cfg})
	a.policy.Load().deriver.slots <- struct{}{} // all hashing is taken
	for want, ctx := range map[string]func() (context.Context, context.CancelFunc){
		"57014": func() (context.Context, context.CancelFunc) {
			return context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
		},
		"57P01": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx, cancel
		},
	} {
		ctx, cancel := ctx()
		_, err := a.Authenticate(ctx, client("app", "secret"), "app", "shop")
		cancel()
		if we := wire.AsError(err); err == nil || we.Code != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret")), Registerer: r})
	for _, password := range []string{"secret", "wrong", "wrong"} {
		_, _ = login(t, a, client("app", password), "app")
	}
	_, _ = login(t, a, &fakeConversation{answer: func(uint32, []byte) ([]byte, error) { return nil, errHungUp }}, "app")
	want := `
# HELP shardproxy_client_auth_total Logins that ended, by method of the rule and result.
# TYPE shardproxy_client_auth_total counter
shardproxy_client_auth_total{method="scram-sha-256",result="failed"} 2
shardproxy_client_auth_total{method="scram-sha-256",result="gone"} 1
shardproxy_client_auth_total{method="scram-sha-256",result="ok"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "shardproxy_client_auth_total"); err != nil {
		t.Error(err)
	}
	families, err := r.Gather()
	if err != nil || len(families) < 8 {
		t.Errorf("%d families, %v", len(families), err)
	}
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	if _, err := New(Options{Config: settings(config.MethodTrust), Registerer: r}); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodPassword, plain("app", "hunter2"))})
	id, err := login(t, a, client("app", "hunter2"), "app")
	if err != nil {
		t.Fatal(err)
	}
	_, failed := login(t, a, client("app", "hunter3"), "app")
	for _, text := range []string{sprint(id), sprint(failed), sprint(a.policy.Load().users["app"])} {
		if strings.Contains(text, "hunter") {
			t.Errorf("a password is printed: %s", text)
		}
	}
}

func TestOffer(t *testing.T) {
	cert := newTestCert(t, ecdsaKey(t, 256), 0)
	for _, c := range []struct {
		tls, cert bool
		want      string
	}{
		{false, true, "SCRAM-SHA-256\x00\x00"},
		{true, false, "SCRAM-SHA-256\x00\x00"},
		{true, true, "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"},
	} {
		a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))})
		conv := client("app", "secret")
		var offers []string
		inner := conv.answer
		conv.answer = func(code uint32, data []byte) ([]byte, error) {
			if code == authSASL {
				offers = append(offers, string(data))
			}
			return inner(code, data)
		}
		if c.tls {
			conv.tls = &tls.ConnectionState{}
		}
		if c.cert {
			conv.cert = cert.leaf
		}
		if _, err := login(t, a, conv, "app"); err != nil || !slices.Equal(offers, []string{c.want}) {
			t.Errorf("offered %q, %v; want %q", offers, err, c.want)
		}
	}
}
