"""ccxt against the exchange at a REST URL; ccxt.pro against its WebSocket."""
import asyncio
import sys

import ccxt.pro

REST, WS = sys.argv[1:3]


async def main():
    exchange = ccxt.pro.binance({'options': {'defaultType': 'spot', 'fetchMarkets': {'types': ['spot']}, 'fetchCurrencies': False}})
    exchange.urls['api']['public'] = REST + '/api/v3'
    exchange.urls['api']['ws']['spot'] = WS + '/ws'
    try:
        await exchange.load_markets()
        assert 'BTC/USDT' in exchange.markets
        assert await exchange.fetch_time() > 0
        trades = await exchange.fetch_trades('BTC/USDT', limit=5)
        assert len(trades) == 5, trades
        watched = await asyncio.wait_for(exchange.watch_trades('BTC/USDT'), 20)
        assert watched[0]['symbol'] == 'BTC/USDT', watched
        quotes = await asyncio.wait_for(exchange.watch_bids_asks(['BTC/USDT']), 20)
        assert 'BTC/USDT' in quotes, quotes
    finally:
        await exchange.close()


asyncio.run(main())
print('ccxt: well')
