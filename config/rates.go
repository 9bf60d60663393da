package config

import "time"

// Rate bounds what is taken in a second. 0 is no bound; a burst of 0 is what a second gives.
type Rate struct {
	// Statements bounds the statements in a second. Default: 0.
	Statements int `yaml:"statements" default:"0" min:"0" max:"100000000"`
	// StatementBurst is how many may come at once after a pause. Default: 0, as many as in a second.
	StatementBurst int `yaml:"statement_burst" default:"0" min:"0" max:"100000000"`
	// Logins bounds the logins in a second. Default: 0.
	Logins int `yaml:"logins" default:"0" min:"0" max:"1000000"`
	// LoginBurst is how many may come at once. Default: 0, as many as in a second.
	LoginBurst int `yaml:"login_burst" default:"0" min:"0" max:"1000000"`
	// Bytes bounds the bytes from and to clients in a second. Default: 0.
	Bytes Size `yaml:"bytes" default:"0" min:"0" max:"1TiB"`
	// BytesBurst is how many may pass at once. Default: 0, as many as in a second.
	BytesBurst Size `yaml:"bytes_burst" default:"0" min:"0" max:"1TiB"`
}

// Rates bound what clients do in a second, of this process.
type Rates struct {
	// User bounds each user that has no rates of its own, Database each such database, and
	// Address each address of clients.
	User     Rate `yaml:"user"`
	Database Rate `yaml:"database"`
	Address  Rate `yaml:"address"`
	// Wait is for how long a statement or a login over a rate waits at most; one that would
	// wait longer is refused. Default: 1 s.
	Wait time.Duration `yaml:"wait" default:"1s" min:"0" max:"1h"`
	// MaxAddresses bounds the addresses that are told apart; further ones share one rate.
	// Default: 10000.
	MaxAddresses int `yaml:"max_addresses" default:"10000" min:"1" max:"1000000"`
}

// UserRate returns the bounds of a user, listed or not.
func (c *Config) UserRate(name string) Rate {
	if u := c.User(name); u != nil && u.Rates != nil {
		return *u.Rates
	}
	return c.Limits.Rates.User
}

// DatabaseRate returns the bounds of a database.
func (c *Config) DatabaseRate(name string) Rate {
	if db := c.Database(name); db != nil && db.Rates != nil {
		return *db.Rates
	}
	return c.Limits.Rates.Database
}

// HasRates reports whether any rate bounds anything.
func (c *Config) HasRates() bool {
	r := &c.Limits.Rates
	has := r.User != Rate{} || r.Database != Rate{} || r.Address != Rate{}
	for i := range c.Users {
		has = has || c.Users[i].Rates != nil
	}
	for i := range c.Databases {
		has = has || c.Databases[i].Rates != nil
	}
	return has
}

// statementSize checks a bound on statements.
func (v *validator) statementSize(n Size, path string) {
	const least = 64 << 10
	if n > 0 && n < least {
		v.add(path+".statement_size", "is neither 0 nor at least 64KiB", "")
	}
}
