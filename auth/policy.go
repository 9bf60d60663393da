package auth

import (
	"errors"
	"fmt"
	"runtime"

	"shardproxy/config"
)

// policy is what the configuration says about logins, immutable once published.
type policy struct {
	config   *config.Config
	rules    []config.Rule
	users    map[string]*account
	lookups  *lookups // nil without auth_query
	deriver  *deriver
	admins   map[string]bool
	monitors map[string]bool
	// mockMD5 says that under the md5 method a name that nobody has is
	// answered with an md5 challenge, as are most of the known ones.
	mockMD5 bool
}

// newPolicy reads the configuration. All problems are in the error; Load has
// found most of them before.
func (a *Authenticator) newPolicy(c *config.Config) (*policy, error) {
	old := a.policy.Load()
	limit := c.Auth.MaxDerivations
	if limit <= 0 {
		limit = max(1, runtime.GOMAXPROCS(0)/2)
	}
	p := &policy{
		config: c, rules: c.Auth.Rules, users: make(map[string]*account, len(c.Users)),
		deriver: newDeriver(limit, a.mocks.salts),
		admins:  set(c.Admin.AdminUsers), monitors: set(c.Admin.MonitorUsers),
	}
	problems := p.addUsers(c.Users, old)
	if q := c.Auth.AuthQuery; q != nil {
		var err error
		if a.querier == nil {
			err = errors.New("auth_query: there is no connection to run it on")
		} else {
			p.lookups, err = newLookups(*q, a.querier, a.now, a.metrics.queries)
		}
		problems = append(problems, err)
	}
	return p, errors.Join(problems...)
}

func (p *policy) addUsers(users []config.User, old *policy) (problems []error) {
	md5, scram := 0, 0
	for _, u := range users {
		a, err := newAccount(u)
		switch {
		case err != nil:
			problems = append(problems, err)
			continue
		case p.users[u.Name] != nil:
			problems = append(problems, fmt.Errorf("user %q is listed twice", u.Name))
			continue
		}
		if a.scram != nil {
			scram++
		} else if a.absent == nil {
			md5++
		}
		if old != nil { // a reload need not derive all keys again
			if o := old.users[u.Name]; o != nil && o.Password == u.Password {
				a.derived.Store(o.derived.Load())
			}
		}
		p.users[u.Name] = a
	}
	p.mockMD5 = md5 > scram
	return problems
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// lookupDatabase returns the database whose servers know the users of the one
// that a client asks for; ok is false when nobody's do: then no server may be
// asked, for the name is the client's invention, or the console's.
func (p *policy) lookupDatabase(asked string) (name string, ok bool) {
	if p.lookups == nil {
		return "", false
	}
	if fixed := p.lookups.query.Database; fixed != "" {
		return fixed, true
	}
	return asked, p.config.Database(asked) != nil
}

// identity says what the account becomes on the servers of a database. proven
// is the cleartext password that the client has sent, empty when it did not.
func (p *policy) identity(a *account, database string, method config.Method, proven config.Secret) Identity {
	login := a.ServerLogin()
	if db := p.config.Database(database); db != nil && db.Server.User != "" && a.ServerUser == "" {
		login = config.Login{User: db.Server.User, Password: db.Server.Password}
	}
	if login.Password.Empty() && login.User == a.Name {
		login.Password = proven
	}
	return Identity{
		User: a.Name, ServerUser: login.User, ServerPassword: login.Password, Method: method,
		Admin: p.admins[a.Name], Monitor: p.monitors[a.Name] || p.admins[a.Name],
	}
}
