-- Quotes with what is asked of them most: the middle, and how far bid and ask lie apart, in price and in basis points of the
-- middle. Worked out when asked for.
CREATE VIEW spreads AS
SELECT ingestion_timestamp, symbol, update_id, bid_price, ask_price, (bid_price + ask_price) / 2 AS mid_price,
       ask_price - bid_price AS spread, 20000 * (ask_price - bid_price) / nullif(bid_price + ask_price, 0) AS spread_bps
FROM book_ticker;
