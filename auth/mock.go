package auth

import (
	"encoding/hex"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/config"
)

// mockAccounts is how many made-up accounts are remembered.
const mockAccounts = 4096

// salts makes salts and mock passwords from a secret, so that they outlive an
// attempt.
type salts []byte

// salt returns a name's salt: the same for a user with a plain password and
// for a name that nobody has, so that they cannot be told apart.
func (s salts) salt(name string) []byte {
	return hmacSHA256(s, "salt\x00", name)[:scramSaltBytes]
}

// password returns a password for a name that nobody has and nobody can guess.
func (s salts) password(name string) string {
	return hex.EncodeToString(hmacSHA256(s, "password\x00", name))
}

// mocks keeps accounts for names that nobody has. They have a password that
// nobody knows, so the first exchange derives keys and later ones find them,
// as with a user of the configuration: neither the messages nor the time that
// they take tell the two apart.
type mocks struct {
	salts salts

	mu    sync.Mutex
	names *simplelru.LRU[string, *account]
}

func newMocks(s salts) (*mocks, error) {
	names, err := simplelru.NewLRU[string, *account](mockAccounts, nil)
	return &mocks{salts: s, names: names}, err
}

// account returns the made-up account of a name.
func (m *mocks) account(name string) *account {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.names.Get(name); ok {
		return a
	}
	user := config.User{Name: name, Password: config.NewSecret(m.salts.password(name))}
	a := &account{User: user, absent: errUnknown}
	m.names.Add(name, a)
	return a
}
