package pool

import (
	"encoding/hex"
	"hash/maphash"
	"slices"
	"strings"
)

// Setting is one run-time setting of a session. Text is the value: the string
// itself when Literal is set, else the SQL to the right of TO.
type Setting struct {
	Name    string // lower case
	Text    string
	Literal bool
	// Encoding names the encoding of a literal Text that is not all ASCII; ""
	// when it is, or when the text is in the client_encoding of the connection.
	Encoding string
}

// Settings is an immutable set of session settings, sorted by name. nil is the
// empty set: everything as the server has it after login.
type Settings struct {
	items []Setting
	hash  uint64
}

// settingsSeed makes hashes comparable within this process; it is constant after start.
var settingsSeed = maphash.MakeSeed()

// NewSettings returns the set of items; of several with one name the last wins.
func NewSettings(items []Setting) *Settings {
	var s *Settings
	for _, it := range items {
		s = s.With(it)
	}
	return s
}

// All returns the settings in name order. The caller must not change them.
func (s *Settings) All() []Setting {
	if s == nil {
		return nil
	}
	return s.items
}

// Get returns the setting of the name.
func (s *Settings) Get(name string) (Setting, bool) {
	i, ok := s.find(name)
	if !ok {
		return Setting{}, false
	}
	return s.items[i], true
}

func (s *Settings) find(name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(s.items, name, func(it Setting, n string) int {
		return strings.Compare(it.Name, n)
	})
}

// With returns a set in which it replaces the setting of its name.
func (s *Settings) With(it Setting) *Settings {
	i, ok := s.find(it.Name)
	if ok {
		if s.items[i] == it {
			return s
		}
		items := slices.Clone(s.items)
		items[i] = it
		return sealed(items)
	}
	return sealed(slices.Insert(slices.Clone(s.All()), i, it))
}

// Without returns a set that lacks the name.
func (s *Settings) Without(name string) *Settings {
	i, ok := s.find(name)
	if !ok {
		return s
	}
	return sealed(slices.Delete(slices.Clone(s.items), i, i+1))
}

func sealed(items []Setting) *Settings {
	if len(items) == 0 {
		return nil
	}
	var h maphash.Hash
	h.SetSeed(settingsSeed)
	for _, it := range items {
		h.WriteString(it.Name)
		h.WriteByte(0)
		h.WriteString(it.Text)
		if it.Literal {
			h.WriteByte(1)
		}
		h.WriteByte(0)
		h.WriteString(it.Encoding)
		h.WriteByte(0)
	}
	return &Settings{items: items, hash: h.Sum64()}
}

// Equal reports whether both sets hold the same settings.
func (s *Settings) Equal(o *Settings) bool {
	if s == o {
		return true
	}
	if s == nil || o == nil || s.hash != o.hash {
		return false
	}
	return slices.Equal(s.items, o.items)
}

// identity settings change who runs the SQL that follows, so they are taken
// back first and applied last.
var identitySettings = [...]string{"session_authorization", "role"}

func isIdentity(name string) bool { return slices.Contains(identitySettings[:], name) }

// AppendChange appends the SQL that turns a server session with the settings
// from into one with the settings s, and returns dst unchanged when they are equal.
func (s *Settings) AppendChange(dst []byte, from *Settings) []byte {
	if s.Equal(from) {
		return dst
	}
	// A role in force on either side is undone first: what follows may need
	// the login role's rights, and setting one identity changes the other.
	identity := hasIdentity(s) || hasIdentity(from)
	if identity {
		dst = append(dst, "RESET SESSION AUTHORIZATION;RESET ROLE;"...)
	}
	for _, it := range from.All() {
		if _, keep := s.find(it.Name); !keep && !isIdentity(it.Name) {
			dst = append(append(append(dst, "RESET "...), quoteName(it.Name)...), ';')
		}
	}
	for _, it := range s.All() {
		if old, ok := from.Get(it.Name); (!ok || old != it) && !isIdentity(it.Name) {
			dst = it.append(dst)
		}
	}
	for _, name := range identitySettings {
		if it, ok := s.Get(name); ok {
			dst = it.append(dst)
		}
	}
	return dst
}

func hasIdentity(s *Settings) bool {
	for _, n := range identitySettings {
		if _, ok := s.find(n); ok {
			return true
		}
	}
	return false
}

// Command returns a SET that makes the setting, with local until the end of the
// transaction; "" when only a call can express the value. Unlike a call it may run
// ahead of SET TRANSACTION.
func (it Setting) Command(local bool) string {
	if !it.Literal || it.Encoding != "" || it.Text == "" || strings.ContainsAny(it.Text, `,"`) {
		return ""
	}
	verb := "SET "
	if local {
		verb = "SET LOCAL "
	}
	return string(appendLiteral([]byte(verb+quoteName(it.Name)+" TO"), it.Text))
}

// SQL returns the command that makes the setting.
func (it Setting) SQL() string {
	b := it.append(nil)
	return string(b[:len(b)-1])
}

func (it Setting) append(dst []byte) []byte {
	switch {
	case it.Literal:
		return append(it.AppendCall(append(dst, "SELECT "...), false), ';')
	case it.Name == "timezone":
		// Intervals are allowed in this form only.
		dst = append(dst, "SET TIME ZONE "...)
	default:
		dst = append(append(append(dst, "SET "...), quoteName(it.Name)...), " TO "...)
	}
	return append(append(dst, it.Text...), ';')
}

// AppendCall appends the call of set_config that makes a literal setting, with
// local until the end of the transaction.
func (it Setting) AppendCall(dst []byte, local bool) []byte {
	dst = append(dst, "pg_catalog.set_config("...)
	dst = appendLiteral(dst, it.Name)
	dst = append(dst, ',')
	if it.Encoding != "" {
		// As hexadecimal digits it means the same in whatever encoding it travels.
		dst = append(dst, "pg_catalog.convert_from(pg_catalog.decode('"...)
		dst = hex.AppendEncode(dst, []byte(it.Text))
		dst = append(dst, "','hex'),"...)
		dst = append(appendLiteral(dst, it.Encoding), ')')
	} else {
		dst = appendLiteral(dst, it.Text)
	}
	if local {
		return append(dst, ",true)"...)
	}
	return append(dst, ",false)"...)
}

// quoteName quotes a setting's name, part by part.
func quoteName(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

// appendLiteral appends v as a string constant that means the same whatever
// standard_conforming_strings says.
func appendLiteral(dst []byte, v string) []byte {
	dst = append(dst, " E'"...)
	for i := 0; i < len(v); i++ {
		if v[i] == '\'' || v[i] == '\\' {
			dst = append(dst, v[i])
		}
		dst = append(dst, v[i])
	}
	return append(dst, '\'')
}
