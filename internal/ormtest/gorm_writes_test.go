package ormtest

import (
	"context"
	"errors"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

func (s *gormShop) updates(ctx context.Context) {
	db := s.db.WithContext(ctx)
	var c gormCustomer
	check(db.First(&c, s.ids[0]).Error)
	c.Name = "saved"
	check(db.Save(&c).Error)
	check(db.Model(&c).Updates(gormCustomer{Email: "new@example.org"}).Error)
	check(db.Model(&c).Select("Active").Updates(gormCustomer{}).Error)
	check(db.First(&c, s.ids[0]).Error)
	s.say("%s %s %v", c.Name, c.Email, c.Active)
	var orders []gormOrder
	check(s.customer(ctx, 0).Preload("Items").Order("id").Find(&orders).Error)
	orders[0].Note = "saved order"
	orders[0].Items[0].Quantity = 77
	check(db.Omit(clause.Associations).Save(&orders[0]).Error)
	check(db.Session(&gorm.Session{FullSaveAssociations: true}).Updates(&orders[0]).Error)
	r := s.customer(ctx, 0).Model(&gormOrder{}).Where("status = ?", "new").Updates(map[string]any{"status": "paid", "note": gorm.Expr("note || '!'")})
	check(r.Error)
	s.say("%d", r.RowsAffected)
	var changed []gormOrder
	check(s.customer(ctx, 0).Model(&changed).Clauses(clause.Returning{}).UpdateColumn("status", "sent").Error)
	s.say("%d", len(changed))
	var again []gormOrder
	check(s.customer(ctx, 0).Preload("Items").Order("id").Find(&again).Error)
	s.say("%v", again)
	check(db.Transaction(func(tx *gorm.DB) error {
		for _, id := range s.ids[10:20] {
			if err := tx.Model(&gormCustomer{ID: id}).Update("active", false).Error; err != nil {
				return err
			}
		}
		return nil
	}))
	for _, id := range s.ids[9:21] {
		var one gormCustomer
		check(db.First(&one, id).Error)
		s.say("%v", one.Active)
	}
}

func (s *gormShop) upserts(ctx context.Context) {
	db := s.db.WithContext(ctx)
	c := gormCustomer{ID: s.ids[0], Name: "upserted", Active: true}
	check(db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&c).Error)
	r := db.Clauses(clause.OnConflict{DoNothing: true}).Create(&gormCustomer{ID: s.ids[1], Name: "no"})
	check(r.Error)
	s.say("%d", r.RowsAffected)
	var order gormOrder
	for range 2 {
		check(db.Where(gormOrder{CustomerID: s.ids[4], Note: "only once"}).FirstOrCreate(&order).Error)
	}
	check(db.Where(gormOrder{CustomerID: s.ids[4], Note: "only once"}).Assign(gormOrder{Status: "sent"}).FirstOrCreate(&order).Error)
	s.notes(ctx, 4)
	items := []gormOrderItem{{order.CustomerID, order.ID, 1, 1, 1, 1, gormProduct{}}, {order.CustomerID, order.ID, 2, 2, 2, 2, gormProduct{}}}
	check(db.Omit(clause.Associations).Create(&items).Error)
	items[0].Quantity, items[1].Quantity = 10, 20
	check(db.Omit(clause.Associations).Clauses(clause.OnConflict{
		Columns:   []clause.Column{{Name: "customer_id"}, {Name: "order_id"}, {Name: "line"}},
		DoUpdates: clause.Assignments(map[string]any{"quantity": gorm.Expr("order_items.quantity + excluded.quantity")}),
	}).Create(&items).Error)
	check(db.Preload("Items").First(&order).Error)
	s.say("%v", order)
}

func (s *gormShop) locks(ctx context.Context) {
	check(s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var c gormCustomer
		check(tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&c, s.ids[3]).Error)
		var orders []gormOrder
		check(tx.Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"}).Where("customer_id = ?", c.ID).Order("id").Find(&orders).Error)
		var p gormProduct
		check(tx.Clauses(clause.Locking{Strength: "SHARE"}).First(&p, "sku = ?", "sku-1").Error)
		s.say("%s %v %s", c.Name, orders, p.Name)
		s.refused("locked", s.db.WithContext(ctx).Clauses(clause.Locking{Strength: "UPDATE", Options: "NOWAIT"}).First(&gormCustomer{}, c.ID).Error)
		return nil
	}))
}

func (s *gormShop) transactions(ctx context.Context) {
	db := s.db.WithContext(ctx)
	never := errors.New("no")
	err := db.Transaction(func(tx *gorm.DB) error {
		check(tx.Create(&gormOrder{CustomerID: s.ids[5], Note: "never"}).Error)
		return never
	})
	s.say("%v", errors.Is(err, never))
	check(db.Transaction(func(tx *gorm.DB) error {
		check(tx.Create(&gormOrder{CustomerID: s.ids[5], Note: "kept"}).Error)
		s.refused("inner", tx.Transaction(func(inner *gorm.DB) error {
			check(inner.Create(&gormOrder{CustomerID: s.ids[5], Note: "inner"}).Error)
			return inner.Omit("Product").Create(&gormOrderItem{CustomerID: s.ids[5], OrderID: -1, Line: 1, ProductID: 1}).Error
		}))
		return tx.Transaction(func(inner *gorm.DB) error {
			return inner.Create(&gormOrder{CustomerID: s.ids[4], Note: "of another customer"}).Error
		})
	}))
	tx := db.Begin()
	check(tx.Create(&gormOrder{CustomerID: s.ids[5], Note: "before"}).Error)
	check(tx.SavePoint("one").Error)
	check(tx.Create(&gormOrder{CustomerID: s.ids[5], Note: "behind"}).Error)
	check(tx.Create(&gormOrder{CustomerID: s.ids[4], Note: "behind"}).Error)
	check(tx.RollbackTo("one").Error)
	check(tx.Commit().Error)
	s.notes(ctx, 4)
	s.notes(ctx, 5)
}

// prepared uses gorm's cache of prepared statements.
func (s *gormShop) prepared(ctx context.Context) {
	db := s.db.WithContext(ctx).Session(&gorm.Session{PrepareStmt: true})
	for range 2 {
		for _, id := range s.ids[2:6] {
			var c gormCustomer
			check(db.Preload("Orders").First(&c, id).Error)
			s.say("%s %d", c.Name, len(c.Orders))
			check(db.Model(&gormOrder{}).Where("customer_id = ?", id).Update("status", "paid").Error)
		}
	}
}

func (s *gormShop) raw(ctx context.Context) {
	db := s.db.WithContext(ctx)
	var notes []string
	check(db.Raw("SELECT o.note FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = @id ORDER BY o.id", map[string]any{"id": s.ids[2]}).Scan(&notes).Error)
	s.say("%q", notes)
	r := db.Exec("UPDATE orders SET note = upper(note) WHERE customer_id = ?", s.ids[2])
	check(r.Error)
	var one int
	check(db.Raw("SELECT 1").Row().Scan(&one))
	s.say("%d %d", r.RowsAffected, one)
}

func (s *gormShop) deletes(ctx context.Context) {
	db := s.db.WithContext(ctx)
	var order gormOrder
	check(s.customer(ctx, 2).First(&order).Error)
	check(db.Select("Items").Delete(&order).Error)
	s.notes(ctx, 2)
	c := gormCustomer{ID: s.ids[2]}
	check(db.Delete(&c).Error)
	s.refused("deleted", db.First(&gormCustomer{}, c.ID).Error)
	check(db.Unscoped().First(&gormCustomer{}, c.ID).Error)
	check(db.Unscoped().Delete(&c).Error)
	s.notes(ctx, 2)
	var n int64
	check(s.customer(ctx, 2).Model(&gormOrderItem{}).Count(&n).Error)
	r := s.customer(ctx, 3).Where("note = ?", "order 2").Delete(&gormOrder{})
	check(r.Error)
	s.say("%d %d", n, r.RowsAffected)
	s.notes(ctx, 3)
}

// migrations lets gorm compare the model with the tables, and alter them.
func (s *gormShop) migrations(ctx context.Context) {
	m := s.db.WithContext(ctx).Migrator()
	check(m.AutoMigrate(&gormCustomer{}, &gormProduct{}, &gormOrder{}, &gormOrderItem{}))
	check(m.AddColumn(&gormOrderNow{}, "Priority"))
	check(m.CreateIndex(&gormOrderNow{}, "Note"))
	s.say("%v %v", m.HasColumn(&gormOrderNow{}, "Priority"), m.HasIndex(&gormOrderNow{}, "idx_orders_note"))
	var priorities []int
	check(s.customer(ctx, 4).Model(&gormOrderNow{}).Pluck("priority", &priorities).Error)
	s.say("%v", priorities)
	check(m.DropColumn(&gormOrderNow{}, "Priority"))
	check(m.RenameColumn(&gormOrderNow{}, "note", "remark"))
	check(m.DropTable(&gormOrderItem{}, &gormOrder{}, &gormCustomer{}, &gormProduct{}))
	left, err := m.GetTables()
	check(err)
	s.say("%v", left)
}
