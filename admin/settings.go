package admin

import (
	"context"
	"strings"

	"shardproxy/wire"
)

// setting is a session setting that drivers read or set when they log in. None
// changes what the console does.
type setting struct {
	name     string // as PostgreSQL spells it
	value    string
	reported bool // by ParameterStatus
	fixed    bool
}

// defaultSettings returns the settings of a new session by their names in
// lower case. Who logs in and our version are filled in by the session.
func defaultSettings() map[string]setting {
	m := map[string]setting{}
	for _, s := range []setting{
		{name: "server_version", reported: true, fixed: true},
		{name: "server_encoding", value: "UTF8", reported: true, fixed: true},
		{name: "integer_datetimes", value: "on", reported: true, fixed: true},
		{name: "is_superuser", value: "off", reported: true, fixed: true},
		{name: "in_hot_standby", value: "off", reported: true, fixed: true},
		{name: "session_authorization", reported: true, fixed: true},
		{name: "max_identifier_length", value: "63", fixed: true},
		{name: "transaction_isolation", value: "read committed", fixed: true},
		{name: "client_encoding", value: "UTF8", reported: true},
		{name: "standard_conforming_strings", value: "on", reported: true},
		{name: "DateStyle", value: "ISO, MDY", reported: true},
		{name: "IntervalStyle", value: "postgres", reported: true},
		{name: "TimeZone", value: "UTC", reported: true},
		{name: "application_name", reported: true},
		{name: "default_transaction_read_only", value: "off", reported: true},
		{name: "default_transaction_isolation", value: "read committed"},
		{name: "extra_float_digits", value: "1"},
		{name: "bytea_output", value: "hex"},
		{name: "client_min_messages", value: "notice"},
		{name: "search_path", value: "public"},
		{name: "statement_timeout", value: "0"},
		{name: "lock_timeout", value: "0"},
		{name: "idle_in_transaction_session_timeout", value: "0"},
	} {
		m[strings.ToLower(s.name)] = s
	}
	return m
}

// startSettings applies what the start-up packet asks for; what the console
// does not know or cannot do is passed over, as PgBouncer does, and
// ParameterStatus then tells the value that holds.
func (s *session) startSettings(start *wire.Startup) {
	s.settings = defaultSettings()
	fill := func(name, value string) {
		set := s.settings[name]
		set.value = value
		s.settings[name] = set
	}
	fill("server_version", serverVersion(s.console.opt.Version))
	fill("session_authorization", s.id.User)
	for _, p := range start.Params {
		if value, err := acceptable(s.settings[strings.ToLower(p.Name)], p.Value); err == nil {
			fill(strings.ToLower(p.Name), value)
		}
	}
	s.first = make(map[string]string, len(s.settings))
	for name, set := range s.settings {
		s.first[name] = set.value
	}
}

// acceptable returns the value as it will be shown, or why it cannot be set.
func acceptable(set setting, value string) (string, *wire.Error) {
	switch {
	case set.name == "":
		return "", wire.Errorf("0A000", "SET cannot change this setting").
			WithHint("Change the configuration file and RELOAD.")
	case set.fixed:
		return "", wire.Errorf("55P02", "parameter %q cannot be changed", set.name)
	case set.name == "client_encoding":
		switch strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(value)) {
		case "utf8", "unicode":
			return "UTF8", nil
		}
		return "", wire.Errorf("22023", "invalid value for parameter \"client_encoding\": %q", value).
			WithHint("The console speaks UTF8 only.")
	case set.name == "standard_conforming_strings" && !isTrue(value):
		return "", wire.Errorf("0A000", "standard_conforming_strings cannot be turned off on the console")
	}
	return value, nil
}

func isTrue(v string) bool {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1":
		return true
	}
	return false
}

func showSetting(key string, def setting) *command {
	columns := []column{textColumn(def.name, "The session's value.")}
	return &command{name: "SHOW setting", columns: columns,
		run: func(_ context.Context, s *session, _ request) (result, *wire.Error) {
			return result{tag: "SHOW", rows: [][]any{{s.settings[key].value}}}, nil
		}}
}

// sessionCommands are what drivers send of their own accord.
func sessionCommands() []*command {
	return []*command{
		{name: "SET", usage: "SET setting = value", run: runSet,
			doc: "Sets a session setting that drivers set, such as client_encoding or application_name. It changes nothing else."},
		{name: "RESET", usage: "RESET setting | ALL", run: runReset,
			doc: "Takes session settings back to what they were at login."},
		{name: "BEGIN", usage: "BEGIN", run: runBegin,
			doc: "Opens a transaction block, for drivers that always do. Nothing is undone by ROLLBACK; commands that steer are refused inside."},
		{name: "COMMIT", usage: "COMMIT", run: runEnd, doc: "Ends the block. END is the same."},
		{name: "END", usage: "END", run: runEnd, doc: "Ends the block."},
		{name: "ROLLBACK", usage: "ROLLBACK", run: runRollback, doc: "Ends the block. ABORT is the same."},
		{name: "ABORT", usage: "ABORT", run: runRollback, doc: "Ends the block."},
		{name: "DEALLOCATE", usage: "DEALLOCATE name | ALL", run: runDeallocate, doc: "Forgets prepared statements."},
		{name: "DISCARD", usage: "DISCARD ALL", run: runDiscard, doc: "RESET ALL and DEALLOCATE ALL."},
	}
}

func runSet(_ context.Context, s *session, r request) (result, *wire.Error) {
	name := strings.ToLower(r.name)
	set := s.settings[name]
	value := r.arg
	if strings.EqualFold(value, "default") {
		value = s.first[name]
	}
	value, err := acceptable(set, value)
	if err != nil {
		if set.name == "" {
			err.Message = "SET cannot change the setting \"" + r.name + "\""
		}
		return result{}, err
	}
	return result{tag: "SET", reported: s.put(name, value)}, nil
}

// put sets a value and returns what the client must be told.
func (s *session) put(name, value string) []wire.Param {
	set := s.settings[name]
	if set.value == value {
		return nil
	}
	set.value = value
	s.settings[name] = set
	if !set.reported {
		return nil
	}
	return []wire.Param{{Name: set.name, Value: value}}
}

func (s *session) resetAll() (told []wire.Param) {
	for name, value := range s.first {
		told = append(told, s.put(name, value)...)
	}
	return told
}

func runReset(_ context.Context, s *session, r request) (result, *wire.Error) {
	name := strings.ToLower(r.name)
	if name == "all" {
		return result{tag: "RESET", reported: s.resetAll()}, nil
	}
	if set := s.settings[name]; set.name == "" || set.fixed {
		return result{}, wire.Errorf("42704", "the console has no setting %q that can be reset", r.name)
	}
	return result{tag: "RESET", reported: s.put(name, s.first[name])}, nil
}

func runBegin(_ context.Context, s *session, _ request) (result, *wire.Error) {
	s.tx = 'T'
	return result{tag: "BEGIN"}, nil
}

func runEnd(_ context.Context, s *session, _ request) (result, *wire.Error) {
	tag := "COMMIT"
	if s.tx == 'E' {
		tag = "ROLLBACK"
	}
	s.tx = 'I'
	return result{tag: tag}, nil
}

func runRollback(_ context.Context, s *session, _ request) (result, *wire.Error) {
	s.tx = 'I'
	return result{tag: "ROLLBACK"}, nil
}

func runDeallocate(_ context.Context, s *session, r request) (result, *wire.Error) {
	if strings.EqualFold(r.arg, "all") {
		clear(s.statements)
		return result{tag: "DEALLOCATE ALL"}, nil
	}
	if s.statements[r.arg] == nil {
		return result{}, noStatement(r.arg)
	}
	delete(s.statements, r.arg)
	return result{tag: "DEALLOCATE"}, nil
}

func runDiscard(_ context.Context, s *session, _ request) (result, *wire.Error) {
	clear(s.statements)
	return result{tag: "DISCARD ALL", reported: s.resetAll()}, nil
}
