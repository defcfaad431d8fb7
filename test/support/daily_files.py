"""Writes the exchange's daily files for BTCUSDT of the audited market (audited-market.ts), without any code of Tapeline.

Usage: daily_files.py FOLDER DATE [--truncate]
Prints the path of each file.
"""

import hashlib
import sys
import zipfile
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

folder, date = Path(sys.argv[1]), sys.argv[2]
truncate = "--truncate" in sys.argv
first = datetime(2026, 1, 1, tzinfo=timezone.utc)


def micros(time):
    return int(time.timestamp()) * 1_000_000


def price_of(pair):
    return f"{Decimal('60000.5') + pair:.8f}"


def quantity_of(trade):
    return Decimal("0.00000001") * (1 + trade % 7)


trades, aggregates = [], []
for pair in range(50):
    at = first + timedelta(hours=2 * pair)
    if at.strftime("%Y-%m-%d") != date:
        continue
    maker = str(pair % 2 == 0)
    ids = (1000 + 2 * pair, 1001 + 2 * pair)
    for one in ids:
        quantity = quantity_of(one)
        quote = f"{Decimal(price_of(pair)) * quantity:.8f}"
        trades.append(f"{one},{price_of(pair)},{quantity:.8f},{quote},{micros(at)},{maker},True")
    total = quantity_of(ids[0]) + quantity_of(ids[1])
    aggregates.append(f"{500 + pair},{price_of(pair)},{total:.8f},{ids[0]},{ids[1]},{micros(at)},{maker},True")

for kind, lines in (("trades", trades), ("aggTrades", aggregates)):
    name = f"BTCUSDT-{kind}-{date}"
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", "".join(f"{line}\n" for line in lines))
    content = path.read_bytes()
    (folder / f"{name}.zip.CHECKSUM").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}.zip\n")
    if truncate:
        path.write_bytes(content[: len(content) // 2])
    print(path)
