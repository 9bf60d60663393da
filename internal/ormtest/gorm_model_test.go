package ormtest

import (
	"fmt"
	"time"

	"gorm.io/gorm"
)

// The shop's model for gorm. It has composite keys: the customer is the first
// column of the primary key of what belongs to a customer, and of the foreign
// keys to it. So whatever gorm makes from a loaded object has the key.
type (
	gormCustomer struct {
		ID        int64 `gorm:"primaryKey"`
		Email     string
		Name      string `gorm:"size:200;index"`
		Active    bool   `gorm:"not null;default:true"`
		CreatedAt time.Time
		DeletedAt gorm.DeletedAt `gorm:"index"`
		Orders    []gormOrder    `gorm:"foreignKey:CustomerID;constraint:OnDelete:CASCADE"`
	}

	gormProduct struct {
		ID    int64
		SKU   string  `gorm:"uniqueIndex;size:40;not null"`
		Name  string  `gorm:"not null"`
		Price float64 `gorm:"type:numeric(10,2);not null"`
		Stock int     `gorm:"not null;default:0;check:stock >= 0"`
	}

	gormOrder struct {
		CustomerID int64  `gorm:"primaryKey;autoIncrement:false"`
		ID         int64  `gorm:"primaryKey;autoIncrement"`
		Status     string `gorm:"not null;default:new"`
		Note       string
		PlacedAt   time.Time       `gorm:"not null;default:now()"`
		Customer   gormCustomer    `gorm:"foreignKey:CustomerID"`
		Items      []gormOrderItem `gorm:"foreignKey:CustomerID,OrderID;references:CustomerID,ID;constraint:OnDelete:CASCADE"`
	}

	gormOrderItem struct {
		CustomerID int64   `gorm:"primaryKey;autoIncrement:false"`
		OrderID    int64   `gorm:"primaryKey;autoIncrement:false"`
		Line       int     `gorm:"primaryKey;autoIncrement:false"`
		ProductID  int64   `gorm:"not null"`
		Quantity   int     `gorm:"not null"`
		Price      float64 `gorm:"type:numeric(10,2);not null"`
		Product    gormProduct
	}

	// gormOrderNow is the order after some months: AutoMigrate alters its table.
	gormOrderNow struct {
		CustomerID int64     `gorm:"primaryKey;autoIncrement:false"`
		ID         int64     `gorm:"primaryKey;autoIncrement"`
		Status     string    `gorm:"not null;default:new;size:20"`
		Note       string    `gorm:"index"`
		Priority   int       `gorm:"not null;default:3"`
		PlacedAt   time.Time `gorm:"not null;default:now()"`
	}
)

func (gormCustomer) TableName() string  { return "customers" }
func (gormProduct) TableName() string   { return "products" }
func (gormOrder) TableName() string     { return "orders" }
func (gormOrderItem) TableName() string { return "order_items" }
func (gormOrderNow) TableName() string  { return "orders" }

// String leaves out what differs by chance: ids and times.
func (o gormOrder) String() string {
	return fmt.Sprintf("{%s %q %v}", o.Status, o.Note, o.Items)
}

// String leaves out the order's id.
func (i gormOrderItem) String() string {
	return fmt.Sprintf("%d:%s*%d@%g", i.Line, i.Product.SKU, i.Quantity, i.Price)
}
