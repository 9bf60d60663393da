package config

import "time"

// Concurrent bounds how many statements run at a time. 0 is no bound.
type Concurrent struct {
	// Statements bounds all of them. Default: 0.
	Statements int `yaml:"statements" default:"0" min:"0" max:"1000000"`
	// Reads bounds those that surely only read. Default: 0.
	Reads int `yaml:"reads" default:"0" min:"0" max:"1000000"`
	// Writes bounds all others that are not about the session alone. Default: 0.
	Writes int `yaml:"writes" default:"0" min:"0" max:"1000000"`
	// Several bounds those that run on several shards. Default: 0.
	Several int `yaml:"several" default:"0" min:"0" max:"1000000"`
}

// Concurrency bounds how many statements run at a time, of this process.
type Concurrency struct {
	// User bounds each user that has no bounds of its own, Database each such database.
	User     Concurrent `yaml:"user"`
	Database Concurrent `yaml:"database"`
	// Wait is for how long a statement waits until others have ended; then it is refused.
	// Default: 5 s.
	Wait time.Duration `yaml:"wait" default:"5s" min:"0" max:"1h"`
}

// UserConcurrent returns the bounds of a user, listed or not.
func (c *Config) UserConcurrent(name string) Concurrent {
	if u := c.User(name); u != nil && u.Concurrent != nil {
		return *u.Concurrent
	}
	return c.Limits.Concurrent.User
}

// DatabaseConcurrent returns the bounds of a database.
func (c *Config) DatabaseConcurrent(name string) Concurrent {
	if db := c.Database(name); db != nil && db.Concurrent != nil {
		return *db.Concurrent
	}
	return c.Limits.Concurrent.Database
}

// HasConcurrency reports whether anything bounds what runs at a time.
func (c *Config) HasConcurrency() bool {
	has := c.Limits.Concurrent.User != Concurrent{} || c.Limits.Concurrent.Database != Concurrent{}
	for i := range c.Users {
		has = has || c.Users[i].Concurrent != nil
	}
	for i := range c.Databases {
		has = has || c.Databases[i].Concurrent != nil
	}
	return has
}
