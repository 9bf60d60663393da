package config

// Names of the virtual database that is the admin console. No database of the
// file may have one of them.
const (
	ConsoleDatabase = "shardproxy"
	ConsoleAlias    = "pgbouncer"
)

// Config is one configuration file with every default filled in, every
// variable expanded and every password file read. It is read-only.
type Config struct {
	// Listen says where clients connect.
	Listen Listen `yaml:"listen"`
	// Admin says where operators look and who of them may steer.
	Admin Admin `yaml:"admin"`
	// Users are the client users known by the file, in its order. Others may
	// be known by Auth.AuthQuery.
	Users []User `yaml:"users"`
	// Databases are the logical databases, in the order of the file, where
	// they are a map from their names. At least one is required.
	Databases []Database `yaml:"databases" form:"map" required:"true"`
	// Auth says how clients prove who they are.
	Auth Auth `yaml:"auth"`
	// Limits bound what clients can take.
	Limits Limits `yaml:"limits"`
	// Timeouts bound how long clients can take.
	Timeouts Timeouts `yaml:"timeouts"`
	// Log says what is logged and how.
	Log Log `yaml:"log"`
	// Tracing says which requests an OpenTelemetry collector is told of.
	Tracing Tracing `yaml:"tracing"`
	// Audit says what is written down of who has done what, and where.
	Audit Audit `yaml:"audit"`
	// Shutdown says how the program ends.
	Shutdown Shutdown `yaml:"shutdown"`
	// Runtime says how sessions use the machine.
	Runtime Runtime `yaml:"runtime"`

	warnings      []Problem
	secretsInside bool // a secret stands in the file itself
}

// Warnings returns what is allowed in the file and probably not meant, such as
// a key file that everybody can read. The caller must not change it.
func (c *Config) Warnings() []Problem { return c.warnings }

// Database returns the database of the name, nil when there is none.
func (c *Config) Database(name string) *Database {
	for i := range c.Databases {
		if c.Databases[i].Name == name {
			return &c.Databases[i]
		}
	}
	return nil
}

// User returns the user of the name, nil when the file does not list it.
func (c *Config) User(name string) *User {
	for i := range c.Users {
		if c.Users[i].Name == name {
			return &c.Users[i]
		}
	}
	return nil
}

// ControlLogin returns the server login of the proxy's own connections to the
// database (probes, catalog): Server.Control; else Server.User; else the first
// listed user whose server password is known; else the user of auth_query;
// else the first listed user, without a password. Load has made sure that one
// of them exists.
func (c *Config) ControlLogin(db *Database) Login {
	if db.Server.Control.User != "" {
		return db.Server.Control
	}
	if db.Server.User != "" {
		return Login{User: db.Server.User, Password: db.Server.Password, PasswordFile: db.Server.PasswordFile}
	}
	for i := range c.Users {
		if l := c.Users[i].ServerLogin(); !l.Password.Empty() {
			return l
		}
	}
	if q := c.Auth.AuthQuery; q != nil {
		return Login{User: q.User, Password: q.Password, PasswordFile: q.PasswordFile}
	}
	if len(c.Users) > 0 {
		return c.Users[0].ServerLogin()
	}
	return Login{}
}
