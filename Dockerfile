# One replica. The database is another container's (DATABASE_URL), or an embedded one under /data.
FROM node:20-bookworm-slim

ENV NODE_ENV=production HOST=0.0.0.0 DATA_DIR=/data
WORKDIR /app

# The packages change less often than the sources. Installing them makes the Prisma client from the schema.
COPY package.json package-lock.json prisma.config.ts tsconfig.json ./
COPY prisma ./prisma
COPY bin ./bin
COPY schema/generate.ts ./schema/
RUN npm ci --omit=dev --no-audit --no-fund && npm cache clean --force

COPY src ./src
RUN node bin/build.js

RUN mkdir /data && chown node:node /data
VOLUME /data
USER node

EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=6 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 8001}/readyz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]

# Not through npm, which would stand between Docker's signals and the replica.
CMD ["node", "--max-semi-space-size=8", "--heap-growing-percent=60", "--max-inlined-bytecode-size-cumulative=120", "--enable-source-maps", "build/cli.js", "replica"]
