package ormtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

// TestGorm is a shop written with gorm.
func TestGorm(t *testing.T) {
	compare(t, "gorm", func(l leg) (string, error) {
		config := &gorm.Config{Logger: logger.Default.LogMode(logger.Silent)}
		db, err := gorm.Open(postgres.Open("postgres://"+l.url()), config)
		if err != nil {
			return "", err
		}
		pool, err := db.DB()
		if err != nil {
			return "", err
		}
		pool.SetMaxOpenConns(3)
		defer pool.Close()
		shop := &gormShop{teller: &teller{leg: l}, db: db}
		return shop.runSections([]goSection{
			{"schema", shop.schema}, {"catalogue", shop.catalogue}, {"customers", shop.customers}, {"orders", shop.orders},
			{"reads", shop.reads}, {"preloads", shop.preloads}, {"pages", shop.pages}, {"aggregates", shop.aggregates},
			{"updates", shop.updates}, {"upserts", shop.upserts}, {"locks", shop.locks}, {"transactions", shop.transactions},
			{"prepared", shop.prepared}, {"raw", shop.raw}, {"deletes", shop.deletes}, {"migrations", shop.migrations},
		})
	})
}

// gormShop is the application, with what it remembers from section to section.
type gormShop struct {
	*teller
	db  *gorm.DB
	ids []int64 // of the customers, in the order of their making: they may have gaps
}

// customer returns a session on one customer's rows, the n-th.
func (s *gormShop) customer(ctx context.Context, n int) *gorm.DB {
	return s.db.WithContext(ctx).Where("customer_id = ?", s.ids[n])
}

// notes tells the notes of a customer's orders.
func (s *gormShop) notes(ctx context.Context, n int) {
	var notes []string
	check(s.customer(ctx, n).Model(&gormOrder{}).Order("id").Pluck("note", &notes).Error)
	s.say("%d: %q", n, notes)
}

func (s *gormShop) schema(ctx context.Context) {
	models := []any{&gormCustomer{}, &gormProduct{}, &gormOrder{}, &gormOrderItem{}}
	m := s.db.WithContext(ctx).Migrator()
	check(m.AutoMigrate(models...))
	for _, model := range models {
		s.say("%v %v", m.HasTable(model), m.HasColumn(model, "customer_id"))
	}
	s.say("%v %v", m.HasConstraint(&gormOrderItem{}, "Product"), m.HasIndex(&gormProduct{}, "idx_products_sku"))
	tables, err := m.GetTables()
	check(err)
	slices.Sort(tables)
	s.say("%v %v", tables, m.CurrentDatabase() == s.database)
}

func (s *gormShop) catalogue(ctx context.Context) {
	db := s.db.WithContext(ctx)
	var products []gormProduct
	for i := range 10 {
		products = append(products, gormProduct{SKU: fmt.Sprint("sku-", i+1), Name: fmt.Sprint("product ", i+1), Price: float64(i) / 2, Stock: 100})
	}
	check(db.Create(&products).Error)
	s.say("%v", products)
	check(db.Model(&products[2]).Updates(map[string]any{"price": 9.99, "stock": gorm.Expr("stock * ?", 2)}).Error)
	check(db.Save(&products[3]).Error)
	r := db.Model(&gormProduct{}).Where("price < ?", 2).Update("stock", gorm.Expr("stock + 1"))
	check(r.Error)
	var count int64
	check(db.Model(&gormProduct{}).Count(&count).Error)
	var all []gormProduct
	check(db.Order("id").Find(&all).Error)
	s.say("%d %d %v", r.RowsAffected, count, all)
	again := []gormProduct{{SKU: "sku-1", Name: "again"}, {SKU: "sku-11", Name: "eleven"}}
	check(db.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "sku"}}, DoUpdates: clause.AssignmentColumns([]string{"name"})}).Create(&again).Error)
	s.refused("a product twice", db.Create(&gormProduct{SKU: "sku-1", Name: "twice"}).Error)
	s.refused("a negative stock", db.Model(&gormProduct{}).Where("sku = ?", "sku-1").Update("stock", -1).Error)
	var one gormProduct
	check(db.Where(gormProduct{SKU: "sku-12"}).Attrs(gormProduct{Name: "twelve"}).FirstOrCreate(&one).Error)
	check(db.Where("sku IN ?", []string{"sku-11", "sku-12"}).Delete(&gormProduct{}).Error)
	var first gormProduct
	check(db.First(&first, "sku = ?", "sku-1").Error)
	s.say("%v", first)
}

func (s *gormShop) customers(ctx context.Context) {
	db := s.db.WithContext(ctx)
	for i := range 6 {
		c := gormCustomer{Email: fmt.Sprintf("c%d@example.org", i), Name: fmt.Sprint("customer ", i)}
		check(db.Create(&c).Error)
		s.ids = append(s.ids, c.ID)
		s.say("%s %v", c.Name, c.Active)
	}
	many := make([]gormCustomer, 20)
	for i := range many {
		many[i].Name = fmt.Sprint("many ", i)
	}
	check(db.CreateInBatches(many, 7).Error)
	for _, c := range many {
		s.ids = append(s.ids, c.ID)
	}
	check(db.Model(&gormCustomer{}).Create(map[string]any{"name": "of a map", "email": "x"}).Error)
	s.say("%d %v", len(s.ids), slices.IsSorted(s.ids))
}

func (s *gormShop) orders(ctx context.Context) {
	for n, id := range s.ids[:6] {
		check(s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			for size := 1; size <= 4; size++ {
				order := gormOrder{CustomerID: id, Note: fmt.Sprint("order ", size)}
				if err := tx.Create(&order).Error; err != nil {
					return err
				}
				var items []gormOrderItem
				for line := range size {
					items = append(items, gormOrderItem{CustomerID: id, OrderID: order.ID, Line: line + 1, ProductID: int64(line + 1), Quantity: size, Price: 2.5})
				}
				if err := tx.Create(&items).Error; err != nil {
					return err
				}
				if order.Status != "new" || order.PlacedAt.IsZero() {
					return errors.New("defaults were not read back")
				}
			}
			return nil
		}))
		s.notes(ctx, n)
	}
	// One statement for two customers.
	check(s.db.WithContext(ctx).Create(&[]gormOrder{{CustomerID: s.ids[0], Note: "of two"}, {CustomerID: s.ids[1], Note: "of two"}}).Error)
	c := gormCustomer{ID: s.ids[0]}
	var orders []gormOrder
	check(s.db.WithContext(ctx).Model(&c).Where("note LIKE ?", "order%").Order("id").Association("Orders").Find(&orders))
	s.say("%v", orders)
	s.say("%d", s.db.WithContext(ctx).Model(&c).Association("Orders").Count())
}

func (s *gormShop) reads(ctx context.Context) {
	db := s.db.WithContext(ctx)
	var c gormCustomer
	check(db.First(&c, s.ids[1]).Error)
	s.say("%s %s", c.Name, c.Email)
	s.refused("no such customer", db.First(&gormCustomer{}, -1).Error)
	var orders []gormOrder
	check(db.Where(&gormOrder{CustomerID: c.ID, Status: "new"}).Not("note = ?", "order 1").Or("customer_id = ? AND note = ?", c.ID, "order 4").Order("id").Find(&orders).Error)
	s.say("%v", orders)
	check(db.Joins("Customer").Find(&orders, "orders.customer_id = ?", c.ID).Error)
	s.say("%d %s", len(orders), orders[0].Customer.Name)
	var rows []struct{ Note, SKU string }
	check(db.Model(&gormOrder{}).Select("orders.note, p.sku").
		Joins("JOIN order_items i ON i.customer_id = orders.customer_id AND i.order_id = orders.id").
		Joins("JOIN products p ON p.id = i.product_id").
		Where("orders.customer_id = ?", c.ID).Order("orders.id, i.line").Scan(&rows).Error)
	s.say("%v", rows)
	sub := db.Model(&gormOrderItem{}).Select("order_id").Where("customer_id = ? AND line = 3", c.ID)
	check(db.Where("customer_id = ? AND id IN (?)", c.ID, sub).Order("id").Find(&orders).Error)
	s.say("%v", orders)
	check(db.Take(&orders[0]).Error)
	var items []gormOrderItem
	check(db.Joins("Product").Where("customer_id = ? AND quantity BETWEEN ? AND ?", c.ID, 2, 3).Order("order_id, line").Find(&items).Error)
	s.say("%v", items)
	var batch []gormOrder
	check(s.customer(ctx, 0).FindInBatches(&batch, 2, func(tx *gorm.DB, n int) error {
		s.say("batch %d: %v", n, batch)
		return nil
	}).Error)
	result, err := s.customer(ctx, 2).Model(&gormOrder{}).Order("id").Rows()
	check(err)
	defer result.Close()
	for result.Next() {
		var o gormOrder
		check(db.ScanRows(result, &o))
		s.say("row %v", o)
	}
}

func (s *gormShop) preloads(ctx context.Context) {
	db := s.db.WithContext(ctx)
	byID := func(db *gorm.DB) *gorm.DB { return db.Order("id") }
	var c gormCustomer
	check(db.Preload("Orders", byID).Preload("Orders.Items", func(db *gorm.DB) *gorm.DB { return db.Order("line") }).
		Preload("Orders.Items.Product").First(&c, s.ids[2]).Error)
	s.say("%s %v", c.Name, c.Orders)
	c = gormCustomer{}
	var orders []gormOrder
	check(s.customer(ctx, 3).Preload(clause.Associations).Order("id").Find(&orders).Error)
	s.say("%v %s", len(orders), orders[0].Customer.Name)
	check(db.Preload("Orders", "note LIKE ?", "%2").First(&c, s.ids[3]).Error)
	s.say("%v", c.Orders)
}

func (s *gormShop) pages(ctx context.Context) {
	for page := range 3 {
		var orders []gormOrder
		check(s.customer(ctx, 0).Order("id").Limit(2).Offset(2 * page).Find(&orders).Error)
		s.say("%v", orders)
	}
	var first, next gormOrder
	check(s.customer(ctx, 0).First(&first).Error)
	check(s.customer(ctx, 0).Where("(placed_at, id) > (?, ?)", first.PlacedAt, first.ID).Order("id").Limit(1).Find(&next).Error)
	s.say("%v %v", first, next)
}

func (s *gormShop) aggregates(ctx context.Context) {
	var rows []struct {
		N     int
		Total float64
	}
	items := s.customer(ctx, 1).Model(&gormOrderItem{})
	check(items.Select("count(*) AS n, sum(quantity * price) AS total").Group("order_id").Having("count(*) > ?", 1).Order("order_id").Scan(&rows).Error)
	s.say("%v", rows)
	var n int64
	check(s.customer(ctx, 1).Model(&gormOrderItem{}).Distinct("product_id").Count(&n).Error)
	var most int
	check(s.customer(ctx, 1).Model(&gormOrderItem{}).Select("max(quantity)").Scan(&most).Error)
	s.say("%d %d", n, most)
	inner := s.customer(ctx, 1).Model(&gormOrderItem{}).Select("order_id, sum(quantity) AS q").Group("order_id")
	check(s.db.WithContext(ctx).Table("(?) AS t", inner).Select("count(*) AS n, avg(q) AS total").Scan(&rows).Error)
	s.say("%v", rows)
}
