CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name char(55) NOT NULL, r_comment char(152) NOT NULL);
CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name char(25) NOT NULL, n_regionkey int NOT NULL REFERENCES region, n_comment char(152) NOT NULL);
CREATE TABLE supplier (
    su_suppkey int PRIMARY KEY, su_name char(25) NOT NULL, su_address varchar(40) NOT NULL, su_nationkey int NOT NULL REFERENCES nation,
    su_phone char(15) NOT NULL, su_acctbal numeric(12,2) NOT NULL, su_comment char(101) NOT NULL);
CREATE TABLE item (i_id int PRIMARY KEY, i_im_id int, i_name varchar(24) NOT NULL, i_price numeric(5,2) NOT NULL, i_data varchar(50) NOT NULL);
CREATE TABLE warehouse (
    w_id int PRIMARY KEY, w_name varchar(10), w_street_1 varchar(20), w_street_2 varchar(20), w_city varchar(20), w_state char(2), w_zip char(9),
    w_tax numeric(4,4), w_ytd numeric(12,2));
CREATE TABLE district (
    d_id int, d_w_id int REFERENCES warehouse, d_name varchar(10), d_street_1 varchar(20), d_street_2 varchar(20), d_city varchar(20), d_state char(2),
    d_zip char(9), d_tax numeric(4,4), d_ytd numeric(12,2), d_next_o_id int, PRIMARY KEY (d_w_id, d_id));
CREATE TABLE customer (
    c_id int, c_d_id int, c_w_id int, c_first varchar(16), c_middle char(2), c_last varchar(16), c_street_1 varchar(20), c_street_2 varchar(20),
    c_city varchar(20), c_state char(2), c_zip char(9), c_phone char(16), c_since timestamp, c_credit char(2), c_credit_lim numeric(12,2),
    c_discount numeric(4,4), c_balance numeric(12,2), c_ytd_payment numeric(12,2), c_payment_cnt int, c_delivery_cnt int, c_data varchar(500),
    PRIMARY KEY (c_w_id, c_d_id, c_id), FOREIGN KEY (c_w_id, c_d_id) REFERENCES district);
CREATE TABLE history (
    h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int NOT NULL, h_date timestamp, h_amount numeric(6,2), h_data varchar(24));
CREATE TABLE orders (
    o_id int, o_d_id int, o_w_id int, o_c_id int, o_entry_d timestamp, o_carrier_id int, o_ol_cnt int, o_all_local int,
    PRIMARY KEY (o_w_id, o_d_id, o_id), FOREIGN KEY (o_w_id, o_d_id, o_c_id) REFERENCES customer);
CREATE TABLE neworder (no_o_id int, no_d_id int, no_w_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id), FOREIGN KEY (no_w_id, no_d_id, no_o_id) REFERENCES orders);
CREATE TABLE orderline (
    ol_o_id int, ol_d_id int, ol_w_id int, ol_number int, ol_i_id int REFERENCES item, ol_supply_w_id int, ol_delivery_d timestamp, ol_quantity int,
    ol_amount numeric(6,2), ol_dist_info char(24), PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number), FOREIGN KEY (ol_w_id, ol_d_id, ol_o_id) REFERENCES orders);
CREATE TABLE stock (
    s_i_id int REFERENCES item, s_w_id int REFERENCES warehouse, s_quantity int, s_dist_01 char(24), s_dist_02 char(24), s_dist_03 char(24), s_dist_04 char(24),
    s_dist_05 char(24), s_dist_06 char(24), s_dist_07 char(24), s_dist_08 char(24), s_dist_09 char(24), s_dist_10 char(24), s_ytd int, s_order_cnt int,
    s_remote_cnt int, s_data varchar(50), PRIMARY KEY (s_w_id, s_i_id));
