package ormtest

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"testing"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5" // the scheme pgx5
	_ "github.com/golang-migrate/migrate/v4/source/file"     // the scheme file
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// TestSqlc is a shop written with pgx and named queries, as sqlc makes the code
// for them, and with golang-migrate for the schema.
func TestSqlc(t *testing.T) {
	compare(t, "sqlc", func(l leg) (string, error) {
		pool, err := pgxpool.New(context.Background(), "postgres://"+l.url()+"&pool_max_conns=3")
		if err != nil {
			return "", err
		}
		defer pool.Close()
		shop := &sqlcShop{teller: &teller{leg: l}, pool: pool}
		return shop.runSections([]goSection{
			{"schema", shop.schema}, {"catalogue", shop.catalogue}, {"customers", shop.customers}, {"orders", shop.orders}, {"copies", shop.copies},
			{"reads", shop.reads}, {"writes", shop.writes}, {"locks", shop.locks}, {"transactions", shop.transactions},
			{"deletes", shop.deletes}, {"migrations", shop.migrations},
		})
	})
}

// prepared is how single tables are read: prepared first, as by default.
const prepared = pgx.QueryExecModeCacheStatement

// sqlcShop is the application, with what it remembers from section to section.
type sqlcShop struct {
	*teller
	pool      *pgxpool.Pool
	customer  []int64 // ids in the order of their making: they may have gaps
	productID []int64
}

// database is a pool or a transaction, as in sqlc's generated code.
type database interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}

// sqlcOrder is a row of orders.
type sqlcOrder struct {
	ID, CustomerID int64
	Status         string
	Note           *string
}

// String leaves the ids out.
func (o sqlcOrder) String() string {
	if o.Note == nil {
		return o.Status
	}
	return o.Status + ":" + *o.Note
}

// many runs a query of orders.
func (s *sqlcShop) many(ctx context.Context, db database, sql string, args ...any) []sqlcOrder {
	rows, err := db.Query(ctx, sql, args...)
	check(err)
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sqlcOrder])
	check(err)
	return orders
}

// tell runs any query and tells its rows.
func (s *sqlcShop) tell(ctx context.Context, db database, sql string, args ...any) {
	rows, err := db.Query(ctx, sql, args...)
	check(err)
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		check(err)
		s.say("%v", values)
	}
	check(rows.Err())
	s.say("%s", rows.CommandTag())
}

// migrate runs steps of golang-migrate's migrations of single tables, 0 for all that are left.
func (s *sqlcShop) migrate(steps int) {
	m, err := migrate.New("file://testdata/sqlc/home", "pgx5://"+s.url())
	check(err)
	s.steps(m, steps)
}

// migrateShop runs steps of the migrations of all tables, from a version.
func (s *sqlcShop) migrateShop(from, steps int) {
	m, err := migrate.New("file://testdata/sqlc/shop", "pgx5://"+s.url()+"&x-migrations-table=shop_migrations")
	check(err)
	check(m.Force(from))
	s.steps(m, steps)
}

func (s *sqlcShop) steps(m *migrate.Migrate, steps int) {
	var err error
	if steps == 0 {
		err = m.Up()
	} else {
		err = m.Steps(steps)
	}
	if errors.Is(err, migrate.ErrNoChange) {
		s.say("no change")
		err = nil
	}
	check(err)
	version, dirty, err := m.Version()
	s.say("version %d, dirty %v, %v", version, dirty, err)
	sourceErr, err := m.Close()
	check(errors.Join(sourceErr, err))
}

// apply runs a file of the sharded tables' migrations as one text.
func (s *sqlcShop) apply(ctx context.Context, name string) {
	text, err := os.ReadFile("testdata/sqlc/shop/" + name + ".sql")
	check(err)
	_, err = s.pool.Exec(ctx, string(text), pgx.QueryExecModeSimpleProtocol)
	check(err)
}

func (s *sqlcShop) schema(ctx context.Context) {
	s.migrate(1)
	s.apply(ctx, "0001_shop.up")
}

func (s *sqlcShop) catalogue(ctx context.Context) {
	for i := range 10 {
		var id int64
		var sku, name, price string
		var stock int
		check(s.pool.QueryRow(ctx, createProduct, fmt.Sprint("sku-", i), fmt.Sprint("product ", i), fmt.Sprint(i)).Scan(&id, &sku, &name, &price, &stock))
		s.productID = append(s.productID, id)
		s.say("%s %s %s %d", sku, name, price, stock)
	}
	var id int64
	err := s.pool.QueryRow(ctx, createProduct, "sku-3", "again", "1").Scan(&id, nil, nil, nil, nil)
	s.say("%v %v", id == s.productID[3], err)
	tag, err := s.pool.Exec(ctx, takeStock, s.productID[4], 30)
	check(err)
	s.say("%s", tag)
	rows, err := s.pool.Query(ctx, listProducts, []string{"sku-3", "sku-4"})
	check(err)
	for rows.Next() {
		values, err := rows.Values()
		check(err)
		s.say("%v", values[1:])
	}
	check(rows.Err())
	_, err = s.pool.Exec(ctx, "UPDATE products SET price = -1 WHERE sku = 'sku-1'")
	s.refused("a negative price", err)
}

func (s *sqlcShop) customers(ctx context.Context) {
	for i := range 8 {
		var id int64
		var name string
		var active bool
		check(s.pool.QueryRow(ctx, createCustomer, fmt.Sprintf("c%d@example.org", i), fmt.Sprint("customer ", i)).Scan(&id, nil, &name, &active, nil, nil))
		s.customer = append(s.customer, id)
		s.say("%s %v", name, active)
	}
	for i := range 20 {
		var id int64
		check(s.pool.QueryRow(ctx, createCustomer, "b", fmt.Sprint("more ", i)).Scan(&id, nil, nil, nil, nil, nil))
		s.customer = append(s.customer, id)
	}
}

func (s *sqlcShop) orders(ctx context.Context) {
	for n, id := range s.customer[:5] {
		check(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			for size := 1; size <= 4; size++ {
				order := s.many(ctx, tx, createOrder, id, fmt.Sprint("order ", size))[0]
				batch := &pgx.Batch{}
				for line := range size {
					batch.Queue(createItem, id, order.ID, line+1, s.productID[line], size)
				}
				if err := tx.SendBatch(ctx, batch).Close(); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, createItemsOfRows, id, order.ID, 11, s.productID[5], 1, "2.5", 12, s.productID[6], 2, "3.5"); err != nil {
					return err
				}
				tag, err := tx.Exec(ctx, createItemOfOther, id, order.ID, 1, 21)
				if err != nil {
					return err
				}
				lines, products, quantities := []int{31, 32}, []int64{s.productID[1], s.productID[2]}, []int{1, 2}
				of, err := tx.Exec(ctx, createItems, id, order.ID, lines, products, quantities)
				if err != nil {
					return err
				}
				s.say("%d %v %s %s", n, order, tag, of)
			}
			return nil
		}))
	}
}

// copies is sqlc's :copyfrom for the rows of several customers.
func (s *sqlcShop) copies(ctx context.Context) {
	columns := []string{"customer_id", "order_id", "line", "product_id", "quantity", "price"}
	var rows [][]any
	for i, id := range s.customer[:5] {
		for _, order := range s.many(ctx, s.pool, listOrders, id, 0, 2) {
			rows = append(rows, []any{id, order.ID, 41, s.productID[7], i + 1, pgtype.Numeric{Int: big.NewInt(175), Exp: -2, Valid: true}})
		}
	}
	n, err := s.pool.CopyFrom(ctx, pgx.Identifier{"order_items"}, columns, pgx.CopyFromRows(rows))
	s.say("%d %v", n, err)
	_, err = s.pool.CopyFrom(ctx, pgx.Identifier{"order_items"}, columns, pgx.CopyFromRows(rows))
	s.refused("copied twice", err)
	for _, id := range s.customer[:5] {
		s.tell(ctx, s.pool, orderTotals, id)
	}
}

func (s *sqlcShop) reads(ctx context.Context) {
	id := s.customer[1]
	s.tell(ctx, s.pool, orderTotals, id)
	s.tell(ctx, s.pool, bestProducts, id)
	s.tell(ctx, s.pool, lastOrders, id)
	s.tell(ctx, s.pool, hasOrders, id, "paid")
	page := s.many(ctx, s.pool, listOrders, id, 0, 3)
	s.say("%v %v", page, s.many(ctx, s.pool, listOrders, id, page[2].ID, 3))
	s.say("%v", s.many(ctx, s.pool, searchOrders, id, "%3", nil))
	s.say("%v", s.many(ctx, s.pool, searchOrders, id, nil, "new"))
	s.say("%v", s.many(ctx, s.pool, getOrder, id, page[0].ID))
	err := s.pool.QueryRow(ctx, getCustomer, -1).Scan(nil, nil, nil, nil, nil, nil)
	s.say("%v", errors.Is(err, pgx.ErrNoRows))
	batch := &pgx.Batch{}
	for range 5 {
		batch.Queue(getCustomer, s.customer[2]).QueryRow(func(row pgx.Row) error {
			var name string
			err := row.Scan(nil, nil, &name, nil, nil, nil)
			s.say("%s", name)
			return err
		})
	}
	check(s.pool.SendBatch(ctx, batch).Close())
}

func (s *sqlcShop) writes(ctx context.Context) {
	var name, preferences string
	check(s.pool.QueryRow(ctx, updateCustomer, s.customer[0], nil, "renamed", `{"colour": "blue"}`).Scan(nil, nil, &name, nil, &preferences, nil))
	s.say("%s %s", name, preferences)
	var ids []int64
	for _, o := range s.many(ctx, s.pool, listOrders, s.customer[0], 0, 2) {
		ids = append(ids, o.ID)
	}
	s.say("%v", len(s.many(ctx, s.pool, setStatus, s.customer[0], ids, "paid")))
	for _, name := range []string{"upserted", "upserted"} {
		err := s.pool.QueryRow(ctx, upsertCustomer, s.customer[1], "u", name).Scan(nil, nil, &name, nil, nil, nil)
		s.say("%s %v", name, err)
	}
	check(s.pool.QueryRow(ctx, upsertCustomer, 1_000_000, "n", "new").Scan(nil, nil, &name, nil, nil, nil))
	s.say("%s %v", name, s.many(ctx, s.pool, listOrders, s.customer[0], 0, 9))
	check(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, id := range s.customer[10:20] {
			if _, err := tx.Exec(ctx, updateCustomer, id, "x@example.org", nil, "{}"); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, id := range s.customer[9:21] {
		var email string
		check(s.pool.QueryRow(ctx, getCustomer, id).Scan(nil, &email, nil, nil, nil, nil))
		s.say("%s", email)
	}
}

func (s *sqlcShop) locks(ctx context.Context) {
	check(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var name string
		check(tx.QueryRow(ctx, lockCustomer, s.customer[2]).Scan(nil, nil, &name, nil, nil, nil))
		_, err := s.pool.Exec(ctx, "SELECT 1 FROM customers WHERE id = $1 FOR UPDATE NOWAIT", s.customer[2])
		s.refused(name, err)
		return nil
	}))
}

func (s *sqlcShop) transactions(ctx context.Context) {
	no := errors.New("no")
	s.say("%v", pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		s.many(ctx, tx, createOrder, s.customer[3], "never")
		s.many(ctx, tx, createOrder, s.customer[4], "never")
		return no
	}))
	check(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		s.many(ctx, tx, createOrder, s.customer[3], "kept")
		s.refused("inner", pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			s.many(ctx, inner, createOrder, s.customer[3], "inner")
			_, err := inner.Exec(ctx, createItem, s.customer[3], -1, 1, s.productID[0], 1)
			return err
		}))
		return pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			s.many(ctx, inner, createOrder, s.customer[4], "of another customer")
			return nil
		})
	}))
	for _, id := range s.customer[3:5] {
		s.say("%v", s.many(ctx, s.pool, listOrders, id, 0, 9))
	}
	check(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		s.say("%v", s.many(ctx, tx, listOrders, s.customer[3], 0, 1))
		return nil
	}))
}

func (s *sqlcShop) deletes(ctx context.Context) {
	first := s.many(ctx, s.pool, listOrders, s.customer[0], 0, 1)[0]
	_, err := s.pool.Exec(ctx, deleteOrder, s.customer[0], first.ID)
	check(err)
	s.tell(ctx, s.pool, orderTotals, s.customer[0])
	_, err = s.pool.Exec(ctx, "DELETE FROM customers WHERE id = $1", s.customer[0])
	s.refused("a customer with orders", err)
	tag, err := s.pool.Exec(ctx, deleteCustomer, s.customer[1])
	s.say("%s %v", tag, err)
	s.tell(ctx, s.pool, orderTotals, s.customer[1])
}

func (s *sqlcShop) migrations(ctx context.Context) {
	s.migrate(0)
	s.migrate(0)
	s.tell(ctx, s.pool, "SELECT version, dirty FROM schema_migrations", prepared)
	s.tell(ctx, s.pool, "SELECT currency, rate, since::text FROM rates ORDER BY 1", prepared)
	s.migrate(-1)
	s.migrateShop(1, 1)
	for _, sql := range []string{
		"CREATE INDEX CONCURRENTLY ON orders (customer_id, note)",
		"REINDEX INDEX CONCURRENTLY orders_customer_id_note_idx",
		"DROP INDEX CONCURRENTLY orders_customer_id_note_idx",
	} {
		tag, err := s.pool.Exec(ctx, sql)
		s.say("%s %v", tag, err)
	}
	s.tell(ctx, s.pool, "SELECT note FROM open_orders WHERE customer_id = $1 ORDER BY id", s.customer[3])
	s.tell(ctx, s.pool, "SELECT name, value FROM settings ORDER BY name", prepared)
	s.tell(ctx, s.pool, "SELECT sku, stock FROM products ORDER BY id LIMIT 2")
	s.migrateShop(2, -1)
	s.migrateShop(1, -1)
	s.tell(ctx, s.pool, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
}
